use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::*;

struct Scene {
    directory: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new(name: &str) -> Self {
        let name = format!("watch-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self { directory, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Watches `config.yaml` while `change` runs on another thread with the
    /// channel of events, and ends when it returns.
    fn watched(&self, change: impl FnOnce(&Receiver<Event>) + Send + 'static) {
        let path = self.path("config.yaml");
        let loaded = Fingerprint::of(&path);
        let (sender, events) = sync_channel(4);
        self.runtime.block_on(async {
            let watch = Prepared::new(WatchedFile { path, loaded })
                .and_then(Prepared::start)
                .unwrap();
            let changing = tokio::task::spawn_blocking(move || change(&events));
            tokio::select! {
                () = watch.run(&sender) => unreachable!("a watch does not end"),
                done = changing => done.unwrap(),
            }
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn expect_reload(events: &Receiver<Event>) {
    let event = events.recv_timeout(Duration::from_secs(10));
    assert_eq!(event, Ok(Event::Reload));
}

#[test]
fn a_file_written_in_place_and_one_moved_over_it() {
    let scene = Scene::new("plain");
    let (path, other) = (scene.path("config.yaml"), scene.path("new"));
    fs::write(&path, "one").unwrap();
    scene.watched(move |events| {
        fs::write(&path, "two").unwrap();
        expect_reload(events);
        fs::write(&other, "three").unwrap();
        fs::rename(&other, &path).unwrap();
        expect_reload(events);
    });
}

#[test]
fn a_config_map_that_is_swapped() {
    let scene = Scene::new("configmap");
    for (version, content) in [("..v1", "one"), ("..v2", "two"), ("..v3", "three")] {
        fs::create_dir(scene.path(version)).unwrap();
        fs::write(scene.path(version).join("config.yaml"), content).unwrap();
    }
    symlink("..v1", scene.path("..data")).unwrap();
    symlink("..data/config.yaml", scene.path("config.yaml")).unwrap();
    let (data, next, first) = (
        scene.path("..data"),
        scene.path("..data_tmp"),
        scene.path("..v1"),
    );
    scene.watched(move |events| {
        symlink("..v2", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        fs::remove_dir_all(first).unwrap();
        expect_reload(events);
        symlink("..v3", &next).unwrap();
        fs::rename(&next, &data).unwrap();
        expect_reload(events);
    });
}

#[test]
fn a_link_to_a_file_elsewhere() {
    let scene = Scene::new("link");
    let elsewhere = scene.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let target = elsewhere.join("real.yaml");
    fs::write(&target, "one").unwrap();
    symlink(&target, scene.path("config.yaml")).unwrap();
    scene.watched(move |events| {
        fs::write(&target, "two").unwrap();
        expect_reload(events);
    });
}

#[test]
fn the_same_content_is_no_change() {
    let scene = Scene::new("same");
    let (path, other) = (scene.path("config.yaml"), scene.path("other.yaml"));
    fs::write(&path, "one").unwrap();
    scene.watched(move |events| {
        fs::write(&other, "unrelated").unwrap();
        fs::write(&path, "one").unwrap();
        // A real change behind it shows that the others have been looked at.
        fs::write(&path, "two").unwrap();
        expect_reload(events);
        assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn a_change_between_loading_and_watching_is_seen() {
    let scene = Scene::new("between");
    let path = scene.path("config.yaml");
    fs::write(&path, "one").unwrap();
    let loaded = Fingerprint::of(&path);
    fs::write(&path, "two").unwrap();
    let (sender, events) = sync_channel(4);
    scene.runtime.block_on(async {
        let watch = Prepared::new(WatchedFile { path, loaded })
            .and_then(Prepared::start)
            .unwrap();
        let waiting = tokio::task::spawn_blocking(move || expect_reload(&events));
        tokio::select! {
            () = watch.run(&sender) => unreachable!("a watch does not end"),
            done = waiting => done.unwrap(),
        }
    });
}
