//! Folders backed up and restored, without the program around it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use perennial::archive::create::{ArchiveError, Request, archive};
use perennial::archive::restore::{self, Counters, RestoreError};
use perennial::archive::source::Source;
use perennial_shared::archive::frame::Compression;
use perennial_shared::archive::objects::Objects;
use perennial_shared::archive::tally::Tally;
use perennial_shared::encryption::DataKey;
use perennial_shared::id::{BackupId, Generation};
use perennial_shared::manifest::Archive;
use perennial_shared::settings::UploadSettings;
use perennial_shared::store::Store;
use perennial_shared::store::faulty::FaultyStore;
use perennial_shared::store::memory::MemoryStore;

use crate::support::run;
use crate::tree::{Change, Tree};

/// How folders are backed up.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Option<DataKey>,
    pub(crate) options: UploadSettings,
    pub(crate) compression: Compression,
    pub(crate) chunk_size: u32,
    /// After so many bytes a data object is followed by another.
    pub(crate) full_at: u64,
    /// As most engines promise it; a folder of files does not.
    pub(crate) ctime_is_ours: bool,
}

impl Case {
    /// What the settings say when they say nothing.
    pub(crate) fn plain() -> Self {
        Self {
            store: Arc::new(MemoryStore::default()),
            key: None,
            options: UploadSettings::default(),
            compression: Compression::default(),
            chunk_size: 16 << 10,
            full_at: u64::MAX,
            ctime_is_ours: true,
        }
    }

    /// As `engine: files` does it, whose files may be changed by anybody.
    pub(crate) fn of_files() -> Self {
        Self { ctime_is_ours: false, ..Self::plain() }
    }

    /// The same on another store.
    pub(crate) fn on(&self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self.clone() }
    }

    /// The same on a store that fails by seed, or at one step.
    pub(crate) fn faulty(&self, store: FaultyStore) -> Self {
        self.on(Arc::new(store))
    }

    pub(crate) async fn back_up(
        &self,
        root: &Path,
        second: i64,
        parent: Option<&Archive>,
    ) -> Result<Archive, ArchiveError> {
        Ok(self.told(root, second, parent).await?.0)
    }

    /// With what a person is told.
    pub(crate) async fn told(
        &self,
        root: &Path,
        second: i64,
        parent: Option<&Archive>,
    ) -> Result<(Archive, Vec<String>), ArchiveError> {
        let source = Source { ctime_is_ours: self.ctime_is_ours, ..Source::folder(root) };
        self.back_up_source(source, second, parent).await
    }

    pub(crate) async fn back_up_source(
        &self,
        source: Source,
        second: i64,
        parent: Option<&Archive>,
    ) -> Result<(Archive, Vec<String>), ArchiveError> {
        let id = BackupId::new(Timestamp::from_second(1_800_000_000 + second).expect("in range"), Generation(1));
        let request = Request {
            store: Arc::clone(&self.store),
            id: id.clone(),
            source,
            parent: parent.cloned(),
            key: self.key.clone(),
            compression: self.compression,
            chunk_size: self.chunk_size,
            upload: self.options,
            full_at: self.full_at,
            reread: false,
            resume: None,
            passed: Arc::new(AtomicU64::new(0)),
        };
        let archived = archive(request).await?;
        Ok((archived.described(&id, parent, ""), archived.findings))
    }

    pub(crate) async fn restore(
        &self,
        backup: &Archive,
        to: &Path,
        local: Option<&Path>,
    ) -> Result<Arc<Counters>, RestoreError> {
        let progress = Arc::new(Counters::default());
        let request = restore::Request {
            objects: self.objects(backup),
            root: backup.index.clone(),
            tally: Tally::of(backup),
            staging: to.to_owned(),
            local: local.map(Path::to_owned),
            include: None,
            progress: Arc::clone(&progress),
        };
        restore::stage(&request).await?;
        Ok(progress)
    }

    /// What a backup's index points to.
    pub(crate) fn objects(&self, backup: &Archive) -> Objects {
        Objects::new(Arc::clone(&self.store), backup, self.key.clone())
    }
}

/// A tree with a base and a change, in a store that is kind so far.
pub(crate) fn changed_tree() -> (Case, Tree, Archive) {
    let case = Case {
        key: Some(DataKey::generate()),
        options: UploadSettings { part_size: 300_000, concurrency: 3, bandwidth: None },
        full_at: 2_000_000,
        ..Case::plain()
    };
    let mut tree = Tree::new();
    for file in 0..12 {
        tree.apply(&Change::Write { file, size: 400_000 * u32::from(file % 4), seed: file });
    }
    let base = run(case.back_up(tree.folder.path(), 0, None)).expect("a base");
    tree.apply(&Change::Overwrite { file: 3, at: 1_000_000, size: 900 });
    tree.apply(&Change::Append { file: 2, size: 700_000 });
    (case, tree, base)
}
