//! Shares of amounts: integer floors; what the floors leave is burned by the caller.

use tiltyard_proto::state::TaskRules;
use tiltyard_proto::task::Payout;
use tiltyard_proto::units::{MicroCredits, Ppm};

/// Returns `part` of `amount`, rounded down; nothing for a negative part, all of it at most.
pub(crate) fn share(amount: MicroCredits, part: Ppm) -> MicroCredits {
    portion(amount, u64::try_from(part.get()).unwrap_or(0), 1_000_000)
}

/// Returns `amount · part / whole`, rounded down, at most `amount`; nothing of a whole of zero.
pub(crate) fn portion(amount: MicroCredits, part: u64, whole: u64) -> MicroCredits {
    let product = u128::from(amount.get()).saturating_mul(u128::from(part));
    let quotient = product.checked_div(u128::from(whole)).unwrap_or(0);
    MicroCredits::new(u64::try_from(quotient).unwrap_or(u64::MAX)).min(amount)
}

/// How a pot is shared before anybody's name is on a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// For all judges together.
    pub(crate) judges: MicroCredits,
    /// For the three places.
    pub(crate) places: [MicroCredits; 3],
}

/// Cuts a pot into the judges' share and the places' shares; the rest (burn and dust) is burned.
pub(crate) fn cut(pot: MicroCredits, rules: &TaskRules, payout: Payout) -> Shares {
    let judges = share(pot, rules.judges);
    let rest = pot.saturating_sub(share(pot, rules.burn)).saturating_sub(judges);
    let places = match payout {
        Payout::WinnerTakesAll => [rest, MicroCredits::ZERO, MicroCredits::ZERO],
        Payout::ThreePlaces => {
            let whole = rules.places.iter().fold(0u64, |sum, place| sum.saturating_add(u64::from(*place)));
            rules.places.map(|place| portion(rest, u64::from(place), whole))
        }
    };
    Shares { judges, places }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_down_and_never_exceed_the_amount() {
        let micro = MicroCredits::new;
        assert_eq!(share(micro(19), Ppm::new(50_000)), micro(0));
        assert_eq!(share(micro(20), Ppm::new(50_000)), micro(1));
        assert_eq!(share(micro(20), Ppm::new(-1)), micro(0));
        assert_eq!(share(micro(20), Ppm::new(2_000_000)), micro(20));
        assert_eq!(portion(micro(u64::MAX), u64::MAX, u64::MAX), micro(u64::MAX));
        assert_eq!(portion(micro(7), 1, 0), micro(0));
    }
}
