//! The accounting of receive buffers, against a model of the kernel.

use proptest::prelude::*;

use super::model::Kernel;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Share { of: usize, start: usize, end: usize },
    Release(usize),
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop_oneof![1..200usize, 1..100_000usize].prop_map(Step::Receive),
        3 => (any::<usize>(), any::<usize>(), any::<usize>()).prop_map(|(of, start, end)| Step::Share { of, start, end }),
        5 => any::<usize>().prop_map(Step::Release),
        2 => Just(Step::Publish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 200 }))]
    #[test]
    fn bytes_stay_as_long_as_a_span_of_them_lives(incremental: bool, steps in prop::collection::vec(step(), 1..200)) {
        let mut groups = Groups::model(incremental, 4 * INCREMENTAL_BYTES as usize);
        let buffers = &mut groups.backends;
        let mut kernel = Kernel::default();
        let mut spans: Vec<(Span, Vec<u8>)> = Vec::new();
        let mut next = 0u8;
        for step in steps {
            match step {
                Step::Receive(length) => {
                    next = next.wrapping_add(1);
                    match kernel.receive(buffers, &vec![next; length]) {
                        Some(completion) => {
                            let span = buffers.received(&completion).unwrap().unwrap();
                            let received = vec![next; usize::try_from(completion.result).unwrap()];
                            spans.push((span, received));
                        }
                        None => prop_assert!(buffers.available() == 0 || buffers.published != buffers.written),
                    }
                }
                Step::Share { of, start, end } if !spans.is_empty() => {
                    let of = of % spans.len();
                    let (whole, bytes) = &spans[of];
                    let (start, end) = (start % (bytes.len() + 2), end % (bytes.len() + 2));
                    let shared = buffers.share(whole, u32::try_from(start).unwrap(), u32::try_from(end).unwrap());
                    prop_assert_eq!(shared.is_some(), start < end && end <= bytes.len());
                    if let Some(part) = shared {
                        let bytes = bytes[start..end].to_vec();
                        spans.push((part, bytes));
                    }
                }
                Step::Release(which) if !spans.is_empty() => {
                    let which = which % spans.len();
                    buffers.release(spans.swap_remove(which).0);
                }
                Step::Publish => buffers.publish(),
                Step::Share { .. } | Step::Release(_) => {}
            }
            for (span, bytes) in &spans {
                prop_assert_eq!(buffers.bytes(span), &bytes[..]);
            }
        }
        for (span, _) in spans {
            buffers.release(span);
        }
        if !incremental {
            prop_assert!(buffers.is_at_rest());
        }
        prop_assert_eq!(buffers.available(), buffers.states.len());
    }
}

#[test]
fn what_a_kernel_cannot_have_done_is_refused() {
    let mut groups = Groups::model(false, 1);
    let plain = &mut groups.frontends;
    assert!(plain.received(&Completion::received(1, 2, false)).is_err(), "no such buffer");
    assert!(plain.received(&Completion::received(1 << 20, 0, false)).is_err(), "more than fits");
    let span = plain.received(&Completion::received(1, 0, false)).unwrap().unwrap();
    assert!(plain.received(&Completion::received(1, 0, false)).is_err(), "not with the kernel");
    plain.release(span);
    assert!(plain.received(&Completion::received(1, 0, false)).unwrap().is_some());
}

#[test]
fn the_end_of_a_stream_takes_no_incremental_buffer() {
    let mut groups = Groups::model(true, 1);
    let incremental = &mut groups.frontends;
    assert!(incremental.received(&Completion::received(0, 0, false)).unwrap().is_none());
    assert!(incremental.is_at_rest());
    // A plain buffer that is named is taken, and goes straight back.
    let mut groups = Groups::model(false, 1);
    let plain = &mut groups.frontends;
    let before = plain.written;
    assert!(plain.received(&Completion::received(0, 0, false)).unwrap().is_none());
    assert!(plain.is_at_rest());
    assert_eq!(plain.written, before + 1);
}

#[test]
fn a_group_is_short_below_a_quarter() {
    let mut groups = Groups::model(false, 8 * PLAIN_BYTES as usize);
    let (buffers, mut kernel) = (&mut groups.frontends, Kernel::default());
    let mut spans = Vec::new();
    for left in (0..8).rev() {
        let completion = kernel.receive(buffers, b"x").unwrap();
        spans.push(buffers.received(&completion).unwrap().unwrap());
        assert_eq!((buffers.available(), buffers.is_short()), (left, left < 2));
    }
    assert!(kernel.receive(buffers, b"x").is_none());
}
