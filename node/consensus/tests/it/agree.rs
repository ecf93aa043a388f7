//! Instances agree, whatever the stakes and the weather.

use tiltyard_consensus::Witness;

use crate::net::Net;

fn assert_nobody_contradicts_itself(net: &Net) {
    let mut witness = Witness::default();
    for message in &net.said {
        assert_eq!(witness.note(message), []);
    }
}

#[test]
fn four_agree_and_their_certificates_verify() {
    let mut net = Net::new(1, &[1, 1, 1, 1]);
    net.start_all();
    net.run(5_000);
    net.assert_agreement();
    assert!(net.lowest() > 60, "{} heights", net.lowest());
    assert_nobody_contradicts_itself(&net);
}

#[test]
fn uneven_stakes_decide_by_stake_not_by_heads() {
    // The first holds more than two thirds: it decides alone.
    let mut net = Net::new(2, &[70, 10, 10, 10]);
    net.start(0);
    net.run(20_000);
    assert!(net.nodes[0].decided.len() > 10);
    // The other three together hold less than a third: they decide nothing.
    let mut net = Net::new(3, &[70, 10, 10, 10]);
    for at in 1..4 {
        net.start(at);
    }
    net.run(20_000);
    assert_eq!(net.nodes[1].decided.len(), 0);
}

#[test]
fn a_lossy_network_costs_rounds_not_safety() {
    for seed in 0..6 {
        let mut net = Net::new(seed, &[5, 4, 3, 2, 1]);
        (net.lost_percent, net.twice_percent, net.delay_ms_max) = (25, 20, 80);
        net.start_all();
        net.run(60_000);
        net.assert_agreement();
        assert!(net.lowest() >= 10, "seed {seed}: {} heights", net.lowest());
        assert_nobody_contradicts_itself(&net);
    }
}

#[test]
fn crashes_at_every_output_neither_fork_nor_make_a_validator_contradict_itself() {
    for boundary in 0..24 {
        let mut net = Net::new(1_000 + boundary, &[1, 1, 1, 1]);
        net.start_all();
        net.run(400);
        net.nodes[2].crash_after = Some(boundary);
        net.run(3_000);
        net.assert_agreement();
        assert_nobody_contradicts_itself(&net);
        assert_eq!(net.nodes[2].halted, None, "boundary {boundary}");
        assert!(net.lowest() > 12, "boundary {boundary}: {} heights", net.lowest());
    }
}

#[test]
fn everyone_crashing_at_random_under_loss_neither_forks_nor_contradicts_itself() {
    for seed in 0..6 {
        let mut net = Net::new(2_000 + seed, &[1, 1, 1, 1]);
        (net.lost_percent, net.delay_ms_max) = (10, 30);
        net.start_all();
        for _ in 0..40 {
            let at = usize::try_from(net.random(4)).unwrap();
            net.nodes[at].crash_after = Some(net.random(25));
            net.run(300);
        }
        net.run(20_000);
        net.assert_agreement();
        assert_nobody_contradicts_itself(&net);
        assert!(net.lowest() > 20, "seed {seed}: {} heights", net.lowest());
    }
}
