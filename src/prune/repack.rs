//! Rewriting packs without what is dead in them, in an ordinary session.
//!
//! Every chunk's id is computed again before it is written: damage is never carried over.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::survey::{Live, Survey};
use super::{outrun, refused};
use crate::error::{Error, Kind, Result};
use crate::format::pack::FrameKind;
use crate::format::session::CommitKind;
use crate::id::PackId;
use crate::index::Found;
use crate::monitor::Monitor;
use crate::repo::content::location;
use crate::repo::frames::{Buffers, spans};
use crate::repo::pack_writer::{PackSettings, PackWriter, kind_of_chunks};
use crate::repo::reader::{FrameAt, ReadRepo};
use crate::repo::session::{Session, pack_name};

/// Stores what is live in `packs` anew; gives the bytes of the packs written.
pub(super) fn run(
    survey: &Survey<'_>,
    live: &Live,
    packs: &BTreeSet<PackId>,
    settings: PackSettings,
    monitor: &Monitor,
) -> Result<u64> {
    let reader = &survey.reader;
    let repo = reader.repo();
    let kept = survey.kept_in(live, packs);
    let session = Arc::new(Session::begin(repo)?);
    let mut writer = PackWriter::new(session.clone(), settings, Arc::new(|_| {}));
    let frames: Vec<&[Found]> = kept.chunk_by(|a, b| location(a).frame == location(b).frame).collect();
    let places: Vec<FrameAt> = frames.iter().map(|frame| location(&frame[0]).frame).collect();
    let mut builders = [FrameKind::Data, FrameKind::Directory, FrameKind::List].map(|kind| (kind, writer.frames()));
    let mut buffers = Buffers::default();
    for span in spans(&places, reader.span_bytes_max()) {
        if monitor.stopping() {
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        session.show_alive();
        let mut outcome = Ok(());
        reader.frames(&places[span.clone()], &mut buffers, &mut |ordinal, frame| {
            if outcome.is_ok() {
                outcome = frame
                    .and_then(|frame| copy(survey, frame, frames[span.start + ordinal], &mut builders, &mut writer));
            }
        });
        if let Err(error) = outcome {
            return Err(if reader.is_outrun()? { outrun() } else { error });
        }
    }
    for (kind, builder) in &mut builders {
        if let Some(frame) = builder.take() {
            writer.add(*kind, frame)?;
        }
    }
    let packs = writer.finish()?;
    let bytes = packs.iter().map(|pack| u64::from(pack.stored_bytes)).sum();
    refused(session.commit(CommitKind::Maintenance, packs, None, Vec::new())?)?;
    Ok(bytes)
}

/// Takes what is wanted of an opened frame.
fn copy(
    survey: &Survey<'_>,
    frame: &[u8],
    wanted: &[Found],
    builders: &mut [(FrameKind, crate::chunk::frame::FrameBuilder); 3],
    writer: &mut PackWriter<'_>,
) -> Result<()> {
    let reader = &survey.reader;
    for found in wanted {
        let at = location(found);
        let start = at.chunk_offset as usize;
        let damaged = |detail: &str| {
            let pack = reader.catalog().packs()[at.frame.pack as usize].id;
            let what = format!("chunk `{}` in `{}` {detail}", found.row.id.short(), pack_name(&pack));
            Error::new(Kind::Damaged, what).hint("to see what that affects, run `esker check --read-data`")
        };
        let kind = FrameKind::from_u8(at.frame.kind).map_err(|_| damaged("is of no known kind"))?;
        let chunk = frame.get(start..start.saturating_add(at.chunk_bytes as usize));
        let ids = &reader.repo().keys.ids;
        let right = |chunk: &&[u8]| kind_of_chunks(kind).is_some_and(|of| ids.chunk(of, chunk) == found.row.id);
        let chunk = chunk.filter(right).ok_or_else(|| damaged("is damaged"))?;
        let builder = builders.iter_mut().find(|(of, _)| *of == kind).ok_or_else(|| damaged("holds no content"))?;
        if let Some(full) = builder.1.push(found.row.id, chunk) {
            writer.add(kind, full)?;
        }
    }
    Ok(())
}
