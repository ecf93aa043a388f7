//! Real processes agree, survive kill -9, serve a light client, and end when asked.

use crate::world::{json, tiltyard, until, world};

#[test]
fn four_validators_agree_and_a_killed_one_comes_back_and_signs() {
    let mut world = world(4, 1);
    for member in &mut world.members {
        member.start();
    }
    until(&world, "everyone at height 5", |world| world.members.iter().all(|member| member.height() >= 5));

    world.members[2].kill();
    let killed_at = world.members[0].height();
    until(&world, "three go on", |world| world.members[0].height() >= killed_at + 5);
    world.members[2].start();
    let back_from = world.members[0].height();
    until(&world, "the fourth is level again", |world| world.members[2].height() > back_from);
    let key = world.members[2].public["validator"].as_str().expect("a validator").to_owned();
    let mut next = back_from + 1;
    until(&world, "the fourth signs again", |world| {
        let Some(block) = world.members[4].get(&format!("/v1/blocks/{next}")) else {
            return false;
        };
        next += 1;
        block["signers"].as_array().is_some_and(|signers| signers.iter().any(|signer| *signer == *key))
    });

    let height = world.members.iter().map(super::world::Member::height).min().expect("members");
    let roots: Vec<_> = world
        .members
        .iter()
        .map(|member| member.get(&format!("/v1/blocks/{height}")).expect("a block")["state_root"].clone())
        .collect();
    assert!(roots.iter().all(|root| *root == roots[0] && root.is_string()), "{roots:?}");

    let genesis = world.genesis.to_str().expect("plain").to_owned();
    let hash = json(&["genesis", "hash", &genesis])["hash"].as_str().expect("a hash").to_owned();
    let (url, witness) = (&world.members[4].url, &world.members[0].url);
    let account = world.members[4].public["account"].as_str().expect("an account");
    let light =
        json(&["light", "--url", url, "--genesis-hash", &hash, "--witness", witness, "--account", account]);
    assert_eq!(light["valid"], true);
    assert_eq!(light["proven"]["fact"]["Account"]["account"]["balance"], 1_000_000_000);
    let foreign = tiltyard(&["light", "--url", url, "--genesis-hash", &"00".repeat(32), "--json"]);
    assert_eq!(foreign.status.code(), Some(1));

    for member in &mut world.members {
        assert_eq!(member.stop(), Some(0), "{}", member.log());
    }
}
