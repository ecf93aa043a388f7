//! How people write amounts, shares and windows.

use tiltyard_proto::units::{Blocks, MICRO_PER_CREDIT, MicroCredits, Ppm};

/// Says why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AmountError {
    #[error("{text:?} is no amount of credits; write it like 12 or 0.5, with at most 6 decimals")]
    Credits { text: String },
    #[error("{text:?} is no percentage; write it like 2 or 0.5, with at most 4 decimals")]
    Percent { text: String },
    #[error(
        "{text:?} is no list of seven windows; write blocks like 8,130,8,8,8,50,8 or times like 1m,2h,5m,5m,5m,20m,5m"
    )]
    Windows { text: String },
}

/// Reads a decimal number with at most `decimals` decimals as an integer of the smallest unit.
fn decimal(text: &str, decimals: usize) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(rest) || rest.len() > decimals {
        return None;
    }
    if text.ends_with('.') {
        return None;
    }
    format!("{whole}{rest:0<decimals$}").parse().ok()
}

/// Reads credits, such as `12.5`.
pub(crate) fn credits(text: &str) -> Result<MicroCredits, AmountError> {
    decimal(text, 6).map(MicroCredits::new).ok_or_else(|| AmountError::Credits { text: text.to_owned() })
}

/// Reads a percentage, such as `0.5`.
pub(crate) fn percent(text: &str) -> Result<Ppm, AmountError> {
    decimal(text, 4)
        .and_then(|value| i64::try_from(value).ok())
        .map(Ppm::new)
        .ok_or_else(|| AmountError::Percent { text: text.to_owned() })
}

/// Writes micro-credits as credits.
pub(crate) fn show(amount: MicroCredits) -> String {
    let (whole, rest) = (amount.get() / MICRO_PER_CREDIT, amount.get() % MICRO_PER_CREDIT);
    if rest == 0 {
        return whole.to_string();
    }
    format!("{whole}.{rest:06}").trim_end_matches('0').to_owned()
}

/// Reads seven windows: plain numbers are blocks, `30s`, `10m`, `2h` and `1d` are converted by the block pace.
pub(crate) fn windows(text: &str, block_interval_ms: u32) -> Result<[Blocks; 7], AmountError> {
    let refused = || AmountError::Windows { text: text.to_owned() };
    let blocks: Vec<Blocks> = text
        .split(',')
        .map(|part| window(part.trim(), block_interval_ms))
        .collect::<Option<_>>()
        .ok_or_else(refused)?;
    <[Blocks; 7]>::try_from(blocks).map_err(|_| refused())
}

fn window(text: &str, block_interval_ms: u32) -> Option<Blocks> {
    let unit_ms: u64 = match text.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return text.parse().ok(),
    };
    let number: u64 = text.get(..text.len().checked_sub(1)?)?.parse().ok()?;
    Some(Blocks::new(number.checked_mul(unit_ms)?.div_ceil(u64::from(block_interval_ms.max(1)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_read_exactly_and_shown_back() {
        for (text, micro, shown) in
            [("12", 12_000_000, "12"), ("0.5", 500_000, "0.5"), ("1.000001", 1_000_001, "1.000001")]
        {
            let amount = credits(text).expect("an amount");
            assert_eq!(amount.get(), micro);
            assert_eq!(show(amount), shown);
        }
        for bad in ["", ".5", "1.", "-1", "1e3", "0.0000001", "99999999999999999999"] {
            assert!(credits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_percent_is_twenty_thousand_ppm() {
        assert_eq!(percent("2"), Ok(Ppm::new(20_000)));
        assert!(percent("2.00001").is_err());
    }

    #[test]
    fn windows_mix_blocks_and_times() {
        let found = windows("8, 1m,8,8,8,30s,1h", 500).expect("seven windows");
        assert_eq!(found.map(Blocks::get), [8, 120, 8, 8, 8, 60, 7_200]);
        assert!(windows("8,8,8", 500).is_err());
        assert!(windows("8,8,8,8,8,8,x", 500).is_err());
    }
}
