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

/// The median of what each round of one came to by the same round of another. Both have met the same disturbances.
pub fn ratio(one: &[f64], other: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = one.iter().zip(other).filter(|(_, other)| **other > 0.0).map(|(one, other)| one / other).collect();
    Figure::of(&ratios).map(|figure| figure.median)
}

/// Measures each of `subjects` once a round, in turns. One that fails is left out from then on, and `failed` gets to know.
pub fn in_turns<T>(
    rounds: usize,
    subjects: usize,
    mut measure: impl FnMut(usize, usize) -> Result<T, String>,
    mut failed: impl FnMut(usize, String),
) -> Vec<Vec<T>> {
    let mut values: Vec<Vec<T>> = (0..subjects).map(|_| Vec::new()).collect();
    let mut is_out = vec![false; subjects];
    for round in 0..rounds {
        // Whoever goes first in one round goes last in the next.
        for turn in 0..subjects {
            let subject = if round % 2 == 0 { turn } else { subjects - 1 - turn };
            if is_out[subject] {
                continue;
            }
            match measure(subject, round) {
                Ok(value) => values[subject].push(value),
                Err(error) => {
                    is_out[subject] = true;
                    values[subject].clear();
                    failed(subject, error);
                }
            }
        }
    }
    values
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
    fn a_ratio_is_taken_round_by_round() {
        assert_eq!(ratio(&[1.0, 20.0, 3.0], &[2.0, 40.0, 3.0]), Some(0.5));
        assert_eq!(ratio(&[1.0], &[]), None);
    }

    #[test]
    fn subjects_take_turns_and_nobody_is_always_first() {
        let mut order = Vec::new();
        let mut failures = Vec::new();
        let measure = |subject, round| {
            order.push(subject);
            if subject == 2 { Err("no".to_owned()) } else { Ok(10 * subject + round) }
        };
        let values = in_turns(3, 3, measure, |subject, error| failures.push((subject, error)));
        assert_eq!(order, [0, 1, 2, 1, 0, 0, 1]);
        assert_eq!(values, [vec![0, 1, 2], vec![10, 11, 12], vec![]]);
        assert_eq!(failures, [(2, "no".to_owned())]);
    }
}
