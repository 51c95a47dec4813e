use super::*;
use crate::policy::health_check::Settings;
use crate::route::settings::{Endpoints, Policies, Protocol};
use crate::telemetry::UpstreamIndex;

const SOON: Duration = Duration::from_millis(1);

fn upstream(settings: Settings) -> Arc<Upstream> {
    Arc::new(Upstream {
        name: "web".into(),
        claims: Vec::new(),
        endpoints: Endpoints::Static(Vec::new()),
        protocol: Protocol::Grpc,
        tls: None,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: Policies {
            health_check: settings,
            ..Policies::default()
        },
    })
}

fn settings(service: &str) -> Settings {
    Settings {
        grpc: Some(service.to_owned()),
        interval: SOON,
        unhealthy: 1,
        healthy: 1,
        ..Settings::default()
    }
}

/// What shards share of an upstream with so many endpoints.
fn shared(endpoints: u8) -> Arc<Shared> {
    let shared = Shared::new(UpstreamIndex::UNMATCHED, Arc::default());
    publish(&shared, 1..=endpoints);
    Arc::new(shared)
}

/// Lists endpoints of these numbers, where nobody listens.
fn publish(shared: &Shared, numbers: impl IntoIterator<Item = u8>) {
    let address = |number| EndpointAddr(([127, 1, 0, number], 1).into());
    let endpoints = numbers.into_iter().map(|number| address(number).into());
    shared.endpoints.publish(endpoints, None);
}

fn checked(shared: &Arc<Shared>, settings: &Settings) -> Vec<CheckedUpstream> {
    vec![CheckedUpstream {
        upstream: upstream(settings.clone()),
        shared: Arc::clone(shared),
    }]
}

fn run(test: impl AsyncFnOnce(Checks)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test(Checks::new(Arc::default())));
}

impl Checks {
    /// Begins what is due once all is.
    async fn begin_all(&mut self) {
        let (last, _) = self.due.last().copied().unwrap();
        sleep_until(last).await;
        self.begin_due();
    }

    /// Waits for the end of a check.
    async fn end_one(&mut self) {
        let ended = self.running.join_next_with_id().await.unwrap();
        self.ended(ended);
    }

    fn unhealthy(&self) -> usize {
        let fitness = self.endpoints.values().map(|one| one.health.fitness());
        fitness.filter(|one| *one == Fitness::Unhealthy).count()
    }
}

#[test]
fn so_many_checks_run_at_once_and_the_others_follow() {
    run(async |mut checks| {
        let shared = shared(100);
        checks.replace(checked(&shared, &settings("")));
        checks.begin_all().await;
        assert_eq!(checks.running.len(), CHECKS_MAX);
        assert_eq!(checks.next_due(), None);
        checks.begin_due();
        assert_eq!(checks.running.len(), CHECKS_MAX);
        while checks.unhealthy() < 100 {
            checks.end_one().await;
            assert!(checks.next_due().is_some());
            checks.begin_due();
            assert!(checks.running.len() <= CHECKS_MAX);
            assert_eq!(checks.due.len() + checks.running.len(), 100);
        }
    });
}

#[test]
fn with_other_settings_checks_begin_anew_and_findings_stay() {
    run(async |mut checks| {
        let shared = shared(3);
        checks.replace(checked(&shared, &settings("")));
        checks.begin_all().await;
        while !checks.running.is_empty() {
            checks.end_one().await;
        }
        assert_eq!(checks.unhealthy(), 3);

        // The same again changes nothing.
        let due = checks.due.clone();
        checks.replace(checked(&shared, &settings("")));
        assert_eq!(checks.due, due);

        checks.begin_all().await;
        assert_eq!((checks.running.len(), checks.due.len()), (3, 0));
        checks.replace(checked(&shared, &settings("shop.Cart")));
        assert_eq!((checks.due.len(), checks.unhealthy()), (3, 3));
        // What was on its way is nobody's, and makes nothing due.
        while !checks.running.is_empty() {
            checks.end_one().await;
        }
        assert_eq!((checks.due.len(), checks.numbers.len()), (3, 0));

        checks.replace(Vec::new());
        assert!(checks.endpoints.is_empty());
        let list = shared.endpoints.current();
        assert!(
            list.iter()
                .all(|one| one.health.fitness() == Fitness::Healthy)
        );
        checks.begin_all().await;
        assert!(checks.running.is_empty() && checks.due.is_empty());
    });
}

#[test]
fn the_list_of_endpoints_is_followed() {
    run(async |mut checks| {
        let shared = shared(3);
        checks.replace(checked(&shared, &settings("")));
        checks.begin_all().await;
        while !checks.running.is_empty() {
            checks.end_one().await;
        }
        publish(&shared, [2, 3, 4]);
        checks.follow();
        assert_eq!((checks.endpoints.len(), checks.unhealthy()), (3, 2));
        // The one that is gone is due once more, and then not checked.
        assert_eq!(checks.due.len(), 4);
        checks.begin_all().await;
        assert_eq!((checks.running.len(), checks.due.len()), (3, 0));
        checks.follow();
        assert_eq!((checks.endpoints.len(), checks.due.len()), (3, 0));
    });
}
