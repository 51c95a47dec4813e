use super::*;

mod control;

const MS: Duration = Duration::from_millis(1);
const SETTINGS: Settings = Settings {
    adaptive: true,
    min: 4,
    max: 1_000,
};

/// Windows of answers, each as soon as it can be.
struct Windows {
    concurrency: Concurrency,
    now: Instant,
    /// Until the next can be closed.
    pause: Duration,
}

impl Windows {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            concurrency: Concurrency::new(now),
            now,
            pause: WINDOW,
        }
    }

    fn limit(&self) -> u32 {
        self.concurrency.limit(&SETTINGS).unwrap()
    }

    /// One window of these samples, over and over, with so many in flight.
    fn window(&mut self, samples: &[Sample], in_flight: u32) -> u32 {
        self.now += self.pause;
        for sample in samples.iter().cycle().take(FIRST_SAMPLES_MIN as usize) {
            self.concurrency
                .report(&SETTINGS, *sample, in_flight, self.now);
        }
        let latency = |sample: &Sample| match sample {
            Sample::Answered(latency) => *latency,
            Sample::Dropped => Duration::ZERO,
        };
        let longest = samples.iter().map(latency).max().unwrap_or_default();
        self.pause = longest * 2 + WINDOW;
        self.limit()
    }

    /// One in which the limit binds.
    fn answered(&mut self, latency: Duration) -> u32 {
        let limit = self.limit();
        self.window(&[Sample::Answered(latency)], limit)
    }

    /// So many of an upstream with these servers, each of which takes 20 ms.
    fn served(&mut self, servers: u32, windows: u32) -> u32 {
        for _ in 0..windows {
            let queue = f64::from(self.limit()) / f64::from(servers);
            self.answered((MS * 20).mul_f64(queue.max(1.0)));
        }
        self.limit()
    }
}

#[test]
fn it_starts_at_the_minimum_and_grows_while_latency_stays() {
    let mut windows = Windows::new();
    assert_eq!(windows.limit(), 4);
    let mut before = 4;
    while before < SETTINGS.max {
        let limit = windows.answered(20 * MS);
        assert!(limit > before, "{limit} after {before}");
        before = limit;
    }
    assert_eq!(windows.answered(20 * MS), SETTINGS.max);
}

#[test]
fn it_settles_where_the_upstream_is_busy_and_follows_its_capacity() {
    let mut windows = Windows::new();
    for servers in [20, 200, 50, 400, 10] {
        let limit = windows.served(servers, 40);
        assert!(
            (servers..=servers * 2).contains(&limit),
            "{servers}: {limit}"
        );
    }
}

#[test]
fn it_never_leaves_its_bounds() {
    let windows = Windows::new();
    for (min, max) in [(1, 1), (50, 60), (2_000, 3_000)] {
        let settings = Settings {
            min,
            max,
            ..SETTINGS
        };
        let limit = windows.concurrency.limit(&settings);
        assert!(limit >= Some(min) && limit <= Some(max));
    }
}

#[test]
fn nothing_changes_while_less_than_half_of_it_is_in_flight() {
    let mut windows = Windows::new();
    let before = windows.served(100, 30);
    for sample in [
        Sample::Answered(20 * MS),
        Sample::Answered(500 * MS),
        Sample::Dropped,
    ] {
        assert_eq!(windows.window(&[sample], before / 2 - 1), before);
    }
    assert_ne!(windows.window(&[Sample::Dropped], before), before);
}

#[test]
fn a_lowered_limit_is_in_force_before_it_is_lowered_again() {
    let mut windows = Windows::new();
    let before = windows.served(100, 30);
    let lower = windows.window(&[Sample::Answered(500 * MS)], before);
    assert!(lower < before);
    assert_eq!(
        windows.window(&[Sample::Answered(500 * MS)], lower + 1),
        lower
    );
    assert!(windows.window(&[Sample::Answered(500 * MS)], lower) < lower);
}

#[test]
fn a_few_slow_answers_do_not_lower_it() {
    let mut windows = Windows::new();
    let mut mostly = vec![Sample::Answered(20 * MS); 49];
    mostly.push(Sample::Answered(2_000 * MS));
    let before = windows.served(100, 30);
    assert!(windows.window(&mostly, before) >= before * 9 / 10);
}

#[test]
fn a_permanent_step_becomes_the_baseline() {
    let mut windows = Windows::new();
    for _ in 0..20 {
        windows.answered(20 * MS);
    }
    assert!(windows.limit() > 100);
    for latency in [60 * MS, 400 * MS] {
        let before = windows.limit();
        let lowest = (0..20).map(|_| windows.answered(latency)).min();
        assert!(lowest < Some(before), "it is taken for a queue first");
        assert!(windows.limit() >= before, "{latency:?}: {before}");
    }
}

#[test]
fn drops_lower_it_by_their_share() {
    let mut windows = Windows::new();
    let mut before = windows.served(400, 30);
    let limit = windows.window(&[Sample::Dropped], before);
    assert!(limit.abs_diff(before / 2) <= 1, "{limit} after {before}");
    before = windows.served(400, 20);
    let one_in_ten = |sample: usize| match sample {
        0 => Sample::Dropped,
        _ => Sample::Answered(27 * MS),
    };
    let some: Vec<Sample> = (0..10).map(one_in_ten).collect();
    let limit = windows.window(&some, before);
    assert!(limit < before, "{limit} after {before}");
    assert!(limit > before * 9 / 10, "{limit} after {before}");
    for _ in 0..20 {
        let limit = windows.limit();
        windows.window(&[Sample::Dropped], limit);
    }
    assert_eq!(windows.limit(), SETTINGS.min);
}

#[test]
fn a_lasting_overload_is_measured_anew() {
    let mut windows = Windows::new();
    let before = windows.served(100, 40);
    let limits: Vec<u32> = (0..200).map(|_| windows.served(100, 1)).collect();
    let is_near = |limit: &u32, wanted: u32| limit.abs_diff(wanted) < 15;
    let halved = limits.iter().filter(|limit| is_near(limit, before / 2));
    // Two or three windows in 30 s.
    assert!((2..=3).contains(&halved.count()), "{limits:?}");
    let others = limits.iter().filter(|limit| !is_near(limit, before / 2));
    assert!(
        others.into_iter().all(|limit| is_near(limit, before)),
        "{limits:?}"
    );
}

#[test]
fn few_samples_close_no_window() {
    let (now, latency) = (Instant::now(), Sample::Answered(20 * MS));
    let concurrency = Concurrency::new(now);
    let later = now + Duration::from_secs(60);
    for _ in 1..FIRST_SAMPLES_MIN {
        concurrency.report(&SETTINGS, latency, 4, later);
    }
    assert_eq!(concurrency.limit(&SETTINGS), Some(4));
    concurrency.report(&SETTINGS, latency, 4, later);
    let limit = concurrency.limit(&SETTINGS);
    assert!(limit > Some(4));
    // Nor do many of them, too early.
    for _ in 0..1_000 {
        concurrency.report(&SETTINGS, latency, 4, later);
    }
    assert_eq!(concurrency.limit(&SETTINGS), limit);
}

/// One whose first window was closed at 100 ms, with this latency.
fn after_a_window(latency: Duration) -> (Concurrency, Instant) {
    let start = Instant::now();
    let concurrency = Concurrency::new(start);
    for _ in 0..FIRST_SAMPLES_MIN {
        let sample = Sample::Answered(latency);
        concurrency.report(&SETTINGS, sample, 4, start + WINDOW);
    }
    assert_eq!(concurrency.limit(&SETTINGS), Some(7));
    (concurrency, start)
}

#[test]
fn a_window_opens_a_latency_after_the_last_and_lasts_another() {
    // The latency in microseconds; when samples come, in milliseconds, and how
    // many; whether a window was closed.
    for (latency_us, samples, closes) in [
        (20_500, &[(120, 29), (221, 1)][..], false),
        (20_500, &[(121, 29), (221, 1)], true),
        (20_500, &[(221, 29)], false),
        (20_500, &[(220, 40)], false),
        (20_500, &[(220, 40), (221, 1)], true),
        (500_500, &[(600, 40), (1_102, 1)], false),
        (500_500, &[(1_101, 40)], false),
        (500_500, &[(1_101, 40), (1_102, 1)], true),
    ] {
        let latency = Duration::from_micros(latency_us);
        let (concurrency, start) = after_a_window(latency);
        for (ms, times) in samples {
            for _ in 0..*times {
                let sample = Sample::Answered(latency);
                concurrency.report(&SETTINGS, sample, 7, start + MS * *ms);
            }
        }
        let closed = concurrency.limit(&SETTINGS) != Some(7);
        assert_eq!(closed, closes, "{latency_us} us: {samples:?}");
    }
}

#[test]
fn drops_close_windows_too() {
    let start = Instant::now();
    let concurrency = Concurrency::new(start);
    let report = |times, sample, at| {
        (0..times).for_each(|_| concurrency.report(&SETTINGS, sample, 4, at));
        concurrency.limit(&SETTINGS)
    };
    report(FIRST_SAMPLES_MIN, Sample::Dropped, start + WINDOW);
    // In the next one the drops of the first are over.
    let (next, answered) = (start + 2 * WINDOW, Sample::Answered(MS));
    assert_eq!(report(SAMPLES_MIN - 1, answered, next), Some(4));
    assert_eq!(report(1, answered, next), Some(7));
}

#[test]
fn a_mean_is_geometric() {
    let mean = |latencies: &[Duration]| {
        let sum = latencies.iter().map(|latency| Latencies::of(*latency).0);
        Latencies(sum.sum()).mean_ns()
    };
    assert_eq!(mean(&[]), None);
    for (latencies, wanted_ns) in [
        (&[Duration::ZERO][..], 1.0),
        (&[MS, 100 * MS], 1e7),
        (&[Duration::from_secs(3_600); 50], 3.6e12),
    ] {
        let share = mean(latencies).unwrap() / wanted_ns;
        assert!((0.99..1.01).contains(&share), "{latencies:?}: {share}");
    }
}

#[test]
fn threads_close_each_window_once() {
    let start = Instant::now();
    let concurrency = Concurrency::new(start);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for ms in 0..20_000 {
                    let in_flight = concurrency.limit(&SETTINGS).unwrap();
                    let sample = Sample::Answered(20 * MS);
                    concurrency.report(&SETTINGS, sample, in_flight, start + MS * ms);
                }
            });
        }
    });
    assert_eq!(concurrency.limit(&SETTINGS), Some(SETTINGS.max));
}

#[test]
fn there_is_no_limit_where_it_is_off() {
    let off = Settings {
        adaptive: false,
        ..SETTINGS
    };
    assert_eq!(Settings::default(), Settings { max: 1_024, ..off });
    let mut windows = Windows::new();
    assert_eq!(windows.concurrency.limit(&off), None);
    for _ in 0..FIRST_SAMPLES_MIN {
        let later = windows.now + Duration::from_secs(60);
        let sample = Sample::Answered(MS);
        windows.concurrency.report(&off, sample, 4, later);
    }
    assert_eq!(windows.limit(), 4);
    assert!(windows.answered(MS) > 4);
}
