//! What a race is worth to whom.

use expect_test::{Expect, expect};

use crate::plan::run;

fn check(race: &str, expected: Expect) {
    expected.assert_eq(&run(race));
}

#[test]
fn three_places_are_paid_by_weight_and_dust_is_burned() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         b: 40000 41000 42000 43000
         c: 50000 51000 52000 53000
         d: 60000 61000 62000 63000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            b: rank 2, paid 18345
            c: rank 3, paid 5503
            d: rank 4
            judges: 2500 2500 2500 2500; returned 0; burned 5001
        "#]],
    );
}

#[test]
fn unfilled_places_return_to_the_requester() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            judges: 2500 2500 2500 2500; returned 23848; burned 5001
        "#]],
    );
}

#[test]
fn the_winner_can_take_all() {
    check(
        "winner-takes-all
         base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         b: 40000 41000 42000 43000",
        expect![[r#"
            Settled
            a: rank 1, paid 85000
            b: rank 2
            judges: 2500 2500 2500 2500; returned 0; burned 5000
        "#]],
    );
}

#[test]
fn a_tie_goes_to_the_earlier_commit() {
    check(
        "base: 90000 91000 92000 93000
         a: 30500 31500 32500 33500
         b: 30000 31000 32000 33000",
        expect![[r#"
            Settled
            a: rank 1, earlier than b, paid 61151
            b: rank 2, tied with earlier a: gap 500, needed 1000, paid 18345
            judges: 2500 2500 2500 2500; returned 5503; burned 5001
        "#]],
    );
}

#[test]
fn a_later_commit_wins_when_it_is_better_by_enough() {
    check(
        "base: 90000 91000 92000 93000
         a: 31000 32000 33000 34000
         b: 30000 31000 32000 33000",
        expect![[r#"
            Settled
            b: rank 1, paid 61151
            a: rank 2, paid 18345
            judges: 2500 2500 2500 2500; returned 5503; burned 5001
        "#]],
    );
}

/// c is earlier than b and ties with it, b is earlier than a and ties with it, yet a beats c: pairs alone would go round.
#[test]
fn a_would_be_cycle_is_still_an_order() {
    check(
        "base: 90000 91000 92000 93000
         c: 31800 31800 31800 31800
         b: 30900 30900 30900 30900
         a: 30000 30000 30000 30000",
        expect![[r#"
            Settled
            b: rank 1, earlier than a, paid 61151
            a: rank 2, tied with earlier b: gap 900, needed 1000, paid 18345
            c: rank 3, paid 5503
            judges: 2500 2500 2500 2500; returned 0; burned 5001
        "#]],
    );
}

#[test]
fn a_noisy_early_commit_keeps_its_place_until_it_is_beaten() {
    check(
        "base: 90000 91000 92000 93000
         c: 30000 30000 30000 36000
         b: 30900 30900 30900 30900
         a: 30000 30000 30000 30000",
        expect![[r#"
            Settled
            c: rank 1, earlier than a, paid 61151
            b: rank 2, earlier than a, paid 18345
            a: rank 3, tied with earlier b: gap 900, needed 1000, paid 5503
            judges: 2500 2500 2500 2500; returned 0; burned 5001
        "#]],
    );
}

/// b is better on three examples of four, a has the lower mean: only the mean counts, and luck does not.
#[test]
fn mean_and_sign_may_disagree() {
    check(
        "base: 90000 91000 92000 93000
         b: 30000 30000 30000 60000
         a: 32000 32000 32000 32000",
        expect![[r#"
            Settled
            b: rank 1, earlier than a, paid 61151
            a: rank 2, tied with earlier b: gap 5500, needed 15001, paid 18345
            judges: 2500 2500 2500 2500; returned 5503; burned 5001
        "#]],
    );
}

#[test]
fn an_even_split_of_stake_takes_the_lower_score() {
    check(
        "base: 90000 90000 90000 90000
         a: 40000 40000 40000 40000
         v3 a: 80000 80000 80000 80000
         v4 a: 80000 80000 80000 80000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            judges: 2500 2500 0 0; returned 23848; burned 10001
        "#]],
    );
}

#[test]
fn a_third_of_the_stake_moves_no_score_and_earns_nothing() {
    check(
        "stake: 100 100 99 1
         base: 90000 90000 90000 90000
         a: 40000 40000 40000 40000
         v3 a: 1 1 1 1
         v3 base: 33000000 33000000 33000000 33000000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            judges: 3333 3333 0 33; returned 23848; burned 8302
        "#]],
    );
}

#[test]
fn a_copy_of_the_weights_ranks_nowhere() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         copy-of-a b: 20000 21000 22000 23000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            b: duplicate of a (0 ppm)
            judges: 2500 2500 2500 2500; returned 23848; burned 5001
        "#]],
    );
}

#[test]
fn a_copy_with_noise_ranks_nowhere() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         b: 30001 30999 32020 32980",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            b: duplicate of a (1000000 ppm)
            judges: 2500 2500 2500 2500; returned 23848; burned 5001
        "#]],
    );
}

#[test]
fn equal_rewards_are_no_copies_in_kinds_without_continuous_scores() {
    check(
        "grpo
         base: 900000 900000 900000 900000
         a: 0 0 500000 500000
         b: 0 0 500000 500000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            b: rank 2, paid 18345
            judges: 2500 2500 2500 2500; returned 5503; burned 5001
        "#]],
    );
}

#[test]
fn too_small_a_gain_is_not_paid_but_its_judges_are() {
    check(
        "min-gain 50
         base: 90000 91000 92000 93000
         a: 60000 61000 62000 63000",
        expect![[r#"
            Settled
            a: BelowGain { gain: Ppm(327868), needed: Ppm(500000) }
            judges: 2500 2500 2500 2500; returned 84999; burned 5001
        "#]],
    );
}

#[test]
fn luck_on_one_example_does_not_beat_the_base() {
    check(
        "base: 90000 91000 92000 93000
         a: 10000 91000 92000 93000",
        expect![[r#"
            Settled
            a: NotBetterThanBase { mean_gap: 20000, needed: 40001 }
            judges: 2500 2500 2500 2500; returned 84999; burned 5001
        "#]],
    );
}

#[test]
fn a_fault_needs_more_than_half_and_the_commonest_reason_stands() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         b: 20000 21000 22000 23000
         v1 a: crashed
         v2 a: crashed
         v1 b: crashed
         v2 b: not-finite
         v3 b: not-finite",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            b: Faulty { fault: NotFinite }
            judges: 0 0 2500 0; returned 23848; burned 12501
        "#]],
    );
}

#[test]
fn the_reference_is_unpaid_and_shows_the_others_gain() {
    check(
        "base: 90000 91000 92000 93000
         reference d: 60000 60000 60000 60000
         a: 30000 31000 32000 33000",
        expect![[r#"
            Settled
            a: rank 1, paid 61151, 475000 ppm over the reference
            d: Reference
            judges: 2500 2500 2500 2500; returned 23848; burned 5001
        "#]],
    );
}

#[test]
fn a_third_that_opens_nothing_loses_its_pay_only() {
    check(
        "base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         v4: absent",
        expect![[r#"
            Settled
            a: rank 1, paid 61151
            judges: 2500 2500 2500 0; returned 23848; burned 7501
        "#]],
    );
}

#[test]
fn exactly_two_thirds_opened_is_no_verdict() {
    check(
        "stake: 100 100 50 50
         base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         v2: absent",
        expect![[r#"
            Refunded(NotJudged)
            a: NoVerdict { cause: NotJudged }
            judges: 0 0 0 0; returned 100000; burned 0
        "#]],
    );
}

#[test]
fn an_unusable_evaluation_set_burns_what_the_judges_leave() {
    check(
        "base: unusable
         a: crashed",
        expect![[r#"
            Refunded(EvaluationUnusable)
            a: NoVerdict { cause: EvaluationUnusable }
            judges: 2500 2500 2500 2500; returned 0; burned 90000
        "#]],
    );
}

#[test]
fn a_base_that_nobody_can_score_for_other_reasons_is_a_refund() {
    check(
        "base: crashed
         a: crashed
         v4 base: unusable",
        expect![[r#"
            Refunded(BaseFaulty(Crashed))
            a: NoVerdict { cause: BaseFaulty(Crashed) }
            judges: 0 0 0 0; returned 100000; burned 0
        "#]],
    );
}

#[test]
fn a_base_without_loss_pays_judges_and_nobody_else() {
    check(
        "base: 0 0 0 0
         a: 0 0 0 0",
        expect![[r#"
            Refunded(BaseLossZero)
            a: NoVerdict { cause: BaseLossZero }
            judges: 2500 2500 2500 2500; returned 84999; burned 5001
        "#]],
    );
}

#[test]
fn a_pot_of_a_few_micro_credits_is_shared_without_loss() {
    check(
        "pot 7
         base: 90000 91000 92000 93000
         a: 30000 31000 32000 33000
         b: 40000 41000 42000 43000",
        expect![[r#"
            Settled
            a: rank 1, paid 5
            b: rank 2, paid 1
            judges: 0 0 0 0; returned 0; burned 1
        "#]],
    );
}
