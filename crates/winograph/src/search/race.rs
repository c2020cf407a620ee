//! Whether one way to compute is faster than another, on a machine that does other things too.
//!
//! Both run in turns. A round gives one ratio, of times that lie close together, and which one begins changes from round
//! to round. Half of the rounds' ratios lie below their true median: how many lie below 1 says how sure it is that the
//! candidate is faster, whatever the times are distributed like.

use crate::error::Result;
use std::time::{Duration, Instant};

/// Time that the calls of one round of one side should take together.
const ROUND: Duration = Duration::from_millis(4);
/// Most calls of a round.
const MOST_CALLS: usize = 40;
/// A call that takes so long needs none before it to warm up.
const LONG: Duration = Duration::from_millis(20);
/// Rounds after which a candidate that is behind is given up.
const FIRST_LOOK: usize = 3;
const SECOND_LOOK: usize = 7;
/// Least gain that counts.
const LEAST_GAIN: f64 = 0.01;

/// Rounds of a candidate, and those below 1 that it needs: a coin gives so many in one of 270 tries.
pub(super) const TRIAL: (usize, usize) = (15, 13);
/// The same for the last comparison: one in 280.
pub(super) const FINAL: (usize, usize) = (21, 17);

/// What a race found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Race {
    /// Time of the candidate over that of the incumbent, by round.
    pub(super) ratios: Vec<f64>,
    /// Whether the candidate is faster, beyond the noise.
    pub(super) faster: bool,
}

impl Race {
    /// The median of the ratios.
    pub(super) fn median(&self) -> f64 {
        median(&self.ratios)
    }
}

fn median(list: &[f64]) -> f64 {
    let mut sorted = list.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match sorted.get(n / 2) {
        None => f64::NAN,
        Some(&upper) if n % 2 == 1 => upper,
        Some(&upper) => (upper + sorted.get(n / 2 - 1).copied().unwrap_or(upper)) / 2.0,
    }
}

/// What is timed: a call gives the time that it took.
pub(super) type Call<'a> = &'a mut dyn FnMut() -> Result<Duration>;

/// The median time of a round's calls.
fn side(call: Call<'_>, calls: usize, warm: bool) -> Result<f64> {
    if warm {
        call()?;
    }
    let times = (0..calls).map(|_| Ok(call()?.as_secs_f64())).collect::<Result<Vec<f64>>>()?;
    Ok(median(&times))
}

/// Lets a candidate run against the incumbent for at most so many rounds, of which so many must be won. A candidate that
/// is behind is given up early, and so is everything at the deadline.
pub(super) fn race(
    incumbent: Call<'_>,
    candidate: Call<'_>,
    (rounds, wins): (usize, usize),
    deadline: Option<Instant>,
) -> Result<Race> {
    let once = incumbent()?.max(Duration::from_micros(1));
    let calls = (ROUND.as_secs_f64() / once.as_secs_f64()).ceil().clamp(1.0, MOST_CALLS as f64) as usize;
    let warm = once < LONG;
    let mut ratios = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let (a, b);
        if round % 2 == 0 {
            a = side(incumbent, calls, warm)?;
            b = side(candidate, calls, warm)?;
        } else {
            b = side(candidate, calls, warm)?;
            a = side(incumbent, calls, warm)?;
        }
        ratios.push(b / a);
        let so_far = median(&ratios);
        let behind =
            ratios.len() == FIRST_LOOK && so_far > 1.0 || ratios.len() == SECOND_LOOK && so_far > 1.0 - LEAST_GAIN;
        let lost = ratios.iter().filter(|r| **r >= 1.0).count() > rounds - wins;
        if behind || lost || deadline.is_some_and(|d| Instant::now() >= d) {
            break;
        }
    }
    let faster = verdict(&ratios, wins);
    Ok(Race { ratios, faster })
}

/// Whether ratios say that a candidate is faster.
fn verdict(ratios: &[f64], wins: usize) -> bool {
    ratios.iter().filter(|r| **r < 1.0).count() >= wins && median(ratios) < 1.0 - LEAST_GAIN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that gives these microseconds in turn.
    fn clock(micros: &[u64]) -> impl FnMut() -> Result<Duration> {
        let mut times = micros.iter().copied().cycle();
        move || Ok(Duration::from_micros(times.next().unwrap_or(1)))
    }

    fn found(a: &[u64], b: &[u64]) -> Race {
        race(&mut clock(a), &mut clock(b), TRIAL, None).unwrap()
    }

    #[test]
    fn a_gain_beyond_the_noise_is_seen() {
        let race = found(&[100_000, 103_000, 98_000], &[90_000, 88_000, 91_000, 93_000]);
        assert!(race.faster && race.ratios.len() == TRIAL.0, "{race:?}");
        assert!((0.8..0.95).contains(&race.median()), "{race:?}");
    }

    #[test]
    fn noise_is_no_gain() {
        assert!(!found(&[100_000], &[100_000]).faster);
        // Less than a hundredth.
        assert!(!found(&[100_000], &[99_500]).faster);
        // As often slower as faster.
        assert!(!found(&[100_000], &[80_000, 120_000]).faster);
        // Slower is given up at the first look.
        assert_eq!(found(&[100_000], &[110_000]).ratios.len(), FIRST_LOOK);
    }

    #[test]
    fn the_deadline_ends_a_race_without_a_winner() {
        let over = Some(Instant::now());
        let race = race(&mut clock(&[100_000]), &mut clock(&[50_000]), TRIAL, over).unwrap();
        assert_eq!(race.ratios, [0.5]);
        assert!(!race.faster);
    }

    #[test]
    fn how_likely_luck_is() {
        // The chance that a coin falls on one side so often is what the constants' comments say.
        for (n, wins) in [TRIAL, FINAL] {
            let choose = |k: usize| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
            let luck: f64 = (wins..=n).map(choose).sum::<f64>() / 2f64.powi(n as i32);
            assert!(luck < 1.0 / 250.0, "{luck}");
        }
    }
}
