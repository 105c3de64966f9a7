//! Makes a repository with many snapshots, to list them: a hundred thousand backups take days, their
//! commits a minute.
//!
//! `many-snapshots DIR KEYFILE COUNT` makes the repository, writes the key file, and puts as many commits as
//! that: of a hundred machines in turn, each an hour after the one before, in one chain, all of a directory that
//! is not there. Every tenth one has a small pack of its own; the others found nothing new.

#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::Arc;

use esker::crypto::ident::ChunkKind;
use esker::format::cbor;
use esker::format::record::RecordKind;
use esker::format::session::Summary;
use esker::format::tree::{Detail, Totals};
use esker::id::ObjectId;
use esker::repo::Repository;
use esker::repo::open::{FirstKey, InitOptions, Local};
use esker::storage::local::Local as Disk;
use esker::world::{Time, World};

#[path = "../../tests/support/forge.rs"]
#[allow(dead_code)]
mod forge;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("usage: many-snapshots DIR KEYFILE COUNT");
    let (dir, key, count) = (next(), next(), next().parse::<u64>().expect("a number"));
    let options = InitOptions {
        parity_percent: 0,
        key: FirstKey::KeyFile,
        kdf: esker::crypto::slot::KdfCost::FLOOR,
        chunker: esker::chunk::cut::Parameters::with_average(64 << 10),
        label: "bench".into(),
        like: None,
    };
    let disk = Disk::create(Path::new(&dir)).expect("a directory");
    let (repo, file) =
        Repository::init(Arc::new(disk), World::system(), &options, Local::default()).expect("a repository");
    std::fs::write(&key, file.expect("it was asked for").to_text().as_bytes()).expect("a key file");
    let mut last: Option<ObjectId> = None;
    let begin = 1_600_000_000;
    for number in 0..count {
        let mut forger = forge::Forger::new(&repo);
        let id = forger.chunk(ChunkKind::Directory, &number.to_le_bytes());
        if number % 10 == 0 {
            forger.put_pack();
        }
        let totals = Totals { files: 41_872, directories: 3_000, bytes: 9_000_000_000 };
        let root = forge::entry("", Detail::Directory { id, level: 2, totals, incomplete: false });
        let mut snapshot = forge::snapshot(root);
        snapshot.time = Time::from_secs(begin + i64::try_from(number).expect("it is small") * 3600);
        snapshot.hostname = format!("machine-{:02}.example.org", number % 100);
        snapshot.paths = vec![b"/etc".to_vec(), b"/home".to_vec(), b"/srv/app".to_vec()];
        snapshot.tags = vec!["nightly".into()];
        snapshot.summary =
            Summary { total_bytes_processed: 9_000_000_000, data_added_packed: number, ..snapshot.summary };
        let mut commit = forger.commit(Some(&snapshot));
        commit.time_secs = snapshot.time.secs;
        commit.sequence = number + 1;
        commit.previous = last.into_iter().collect();
        let name = format!("snapshots/{}", commit.session);
        let stored = forge::sealed_record(&repo, RecordKind::Commit, &name, &cbor::encode(&commit));
        last = Some(ObjectId::of(&stored));
        // Straight into the directory: to be durable matters to nobody.
        let path = Path::new(&dir).join(&name);
        std::fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        std::fs::write(path, stored).expect("room");
    }
    println!("{count} snapshots in {dir}");
}
