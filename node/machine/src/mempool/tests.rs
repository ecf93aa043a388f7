//! The mempool over made-up senders.

use super::*;
use tiltyard_keys::{GenesisHash, SecretKey};
use tiltyard_proto::ids::TaskId;
use tiltyard_proto::transaction::Action;

fn made(seed: u8, nonce: u64, fee: u64) -> VerifiedTransaction {
    let key = SecretKey::from_seed(&[seed; 32]);
    let genesis = GenesisHash::from_bytes([0; 32]);
    let action = if fee == 0 {
        Action::Accept { task: TaskId::from_bytes([seed; 32]) }
    } else {
        Action::Transfer { to: key.public(), amount: MicroCredits::new(1) }
    };
    Transaction {
        version: Transaction::VERSION,
        genesis,
        sender: key.public(),
        nonce: Nonce::new(nonce),
        fee: MicroCredits::new(fee),
        valid_until: Height::new(10),
        action,
    }
    .sign(&key.signer(genesis))
}

fn pool(bytes_max: usize) -> Mempool {
    Mempool::new(MempoolLimits { bytes_max, per_sender_max: 4 })
}

fn fees(pool: &Mempool, bytes: usize) -> Vec<(u64, u64)> {
    pool.select(bytes, 100).iter().map(|t| (t.transaction().fee.get(), t.transaction().nonce.get())).collect()
}

#[test]
fn a_block_takes_duties_first_then_the_best_fee_each_sender_in_nonce_order() {
    let mut pool = pool(1 << 20);
    for (seed, nonce, fee) in [(1, 1, 900_000), (1, 0, 1_000), (2, 0, 50_000), (3, 0, 0)] {
        pool.insert(made(seed, nonce, fee), Nonce::ZERO, false).unwrap();
    }
    assert_eq!(fees(&pool, 1 << 20), [(0, 0), (50_000, 0), (1_000, 0), (900_000, 1)]);
}

#[test]
fn a_sender_whose_head_does_not_fit_sends_nothing_behind_it() {
    let mut pool = pool(1 << 20);
    for nonce in 0..3 {
        pool.insert(made(1, nonce, 1_000), Nonce::ZERO, false).unwrap();
    }
    let one = made(1, 0, 1_000).signed().encode().len();
    assert_eq!(fees(&pool, one * 2 + 1).len(), 2);
}

#[test]
fn a_full_pool_gives_up_the_cheapest_and_never_its_own() {
    let one = made(1, 0, 1_000).signed().encode().len() + 16;
    let mut pool = pool(one * 2);
    pool.insert(made(1, 0, 1_000), Nonce::ZERO, true).unwrap();
    pool.insert(made(2, 0, 2_000), Nonce::ZERO, false).unwrap();
    let cheap = pool.insert(made(3, 0, 1_500), Nonce::ZERO, false);
    assert_eq!(cheap, Err(SubmitError::Full));
    pool.insert(made(3, 0, 9_000), Nonce::ZERO, false).unwrap();
    assert_eq!(fees(&pool, 1 << 20), [(9_000, 0), (1_000, 0)]);
    assert!(pool.bytes() <= one * 2);
}

#[test]
fn a_sender_may_hold_so_many_and_not_too_far_ahead() {
    let mut pool = pool(1 << 20);
    for nonce in 0..4 {
        pool.insert(made(1, nonce, 1_000), Nonce::ZERO, false).unwrap();
    }
    let ahead = pool.insert(made(1, 4, 1_000), Nonce::ZERO, false);
    assert_eq!(ahead, Err(SubmitError::Gap { next: 0 }));
    let known = made(1, 0, 1_000);
    assert_eq!(pool.insert(known.clone(), Nonce::ZERO, false), Err(SubmitError::Known { id: known.id() }));
}

#[test]
fn a_nonce_is_replaced_by_a_higher_fee_only() {
    let mut pool = pool(1 << 20);
    pool.insert(made(1, 0, 2_000), Nonce::ZERO, false).unwrap();
    let lower = pool.insert(made(1, 0, 1_999), Nonce::ZERO, false);
    assert_eq!(lower, Err(SubmitError::Taken { fee: 2_000 }));
    pool.insert(made(1, 0, 2_001), Nonce::ZERO, false).unwrap();
    assert_eq!(fees(&pool, 1 << 20), [(2_001, 0)]);
    assert_eq!(pool.len(), 1);
}

#[test]
fn a_full_pool_stays_full_of_the_best_whatever_comes() {
    let one = made(1, 0, 1_000).signed().encode().len() + 16;
    let mut pool = pool(one * 10);
    for seed in 1..=200u8 {
        let fee = 1_000 + u64::from(seed.wrapping_mul(37)) * 10;
        let came = pool.insert(made(seed, 0, fee), Nonce::ZERO, false);
        assert!(came.is_ok() || came == Err(SubmitError::Full), "{came:?}");
        assert!(pool.bytes() <= one * 10);
        assert_eq!(pool.tails.len(), pool.senders.len());
    }
    let kept: Vec<u64> = fees(&pool, 1 << 20).into_iter().map(|(fee, _)| fee).collect();
    let mut best: Vec<u64> = (1..=200u8).map(|s| 1_000 + u64::from(s.wrapping_mul(37)) * 10).collect();
    best.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(kept, best[..kept.len()]);
    assert!(kept.len() >= 10, "{}", kept.len());
}

#[test]
fn what_would_not_be_taken_is_known_before_its_signature_is() {
    let one = made(1, 0, 1_000).signed().encode().len() + 16;
    let mut pool = pool(one * 2);
    for seed in [1, 2] {
        pool.insert(made(seed, 0, 5_000), Nonce::ZERO, false).unwrap();
    }
    for (seed, nonce, fee) in [(3, 0, 4_000), (3, 0, 6_000), (3, 9, 6_000), (1, 0, 5_000)] {
        let transaction = made(seed, nonce, fee);
        let bytes = transaction.signed().encode().len();
        let said = pool.has_room(transaction.transaction(), bytes, Nonce::ZERO, false);
        let mut copy = Mempool::new(pool.limits);
        for seed in [1, 2] {
            copy.insert(made(seed, 0, 5_000), Nonce::ZERO, false).unwrap();
        }
        let done = copy.insert(transaction.clone(), Nonce::ZERO, false);
        if done != Err(SubmitError::Known { id: transaction.id() }) {
            assert_eq!(said, done, "{seed} {nonce} {fee}");
        }
    }
}

#[test]
fn removing_leaves_no_trace() {
    let mut pool = pool(1 << 20);
    for nonce in 0..3 {
        pool.insert(made(1, nonce, 1_000), Nonce::ZERO, false).unwrap();
    }
    let sender = made(1, 0, 1_000).transaction().sender;
    assert_eq!(pool.next_nonce(&sender, Nonce::ZERO), Nonce::new(3));
    pool.forget_below(&sender, Nonce::new(2));
    assert_eq!(pool.len(), 1);
    pool.remove(&made(1, 2, 1_000).id()).unwrap();
    assert_eq!((pool.len(), pool.bytes()), (0, 0));
    assert!(pool.tails.is_empty() && pool.senders.is_empty());
}
