//! Rounds in turns, and what they come to.

/// What the rounds of one subject came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Half of the rounds were lower.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// How many there were.
    pub rounds: usize,
}

impl Figure {
    /// Of the values of all rounds; nothing if there was none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let upper = *sorted.get(sorted.len() / 2)?;
        let median =
            if sorted.len().is_multiple_of(2) { f64::midpoint(*sorted.get(sorted.len() / 2 - 1)?, upper) } else { upper };
        Some(Self { median, low, high, rounds: values.len() })
    }
}

/// Measures each subject once a round, in turns; what each came to, in their order.
///
/// # Errors
/// The first that a measurement has.
pub fn in_turns<const N: usize>(
    rounds: usize,
    mut measure: impl FnMut(usize, usize) -> Result<f64, String>,
) -> Result<[Figure; N], String> {
    let mut values = [const { Vec::new() }; N];
    for round in 0..rounds {
        // Whoever goes first in one round goes last in the next.
        for turn in 0..N {
            let subject = if round % 2 == 0 { turn } else { N - 1 - turn };
            values[subject].push(measure(subject, round)?);
        }
    }
    let mut figures = [Figure { median: 0.0, low: 0.0, high: 0.0, rounds: 0 }; N];
    for (figure, values) in figures.iter_mut().zip(&values) {
        *figure = Figure::of(values).ok_or("no rounds were measured")?;
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_has_as_many_below_as_above() {
        assert_eq!(Figure::of(&[3.0, 1.0, 9.0]), Some(Figure { median: 3.0, low: 1.0, high: 9.0, rounds: 3 }));
        assert_eq!(Figure::of(&[4.0, 1.0]).map(|figure| figure.median), Some(2.5));
        assert_eq!(Figure::of(&[]), None);
    }

    #[test]
    fn subjects_take_turns_and_nobody_is_always_first() {
        let mut order = Vec::new();
        let figures: [Figure; 2] = in_turns(3, |subject, round| {
            order.push(subject);
            Ok((10 * subject + round) as f64)
        })
        .unwrap();
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
        assert_eq!(figures.map(|figure| figure.median), [1.0, 11.0]);
    }
}
