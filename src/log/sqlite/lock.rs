//! Exclusive use of a data directory: a lock on the file `lock`, which names its holder.

use super::OpenError;
use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

/// Held as long as it lives; the system lets go of it when the process ends, however it ends.
pub(super) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that was just begun and still has a copy of the file.
        let _ = self.file.unlock();
    }
}

impl DirLock {
    /// # Errors
    ///
    /// [`OpenError::InUse`], [`OpenError::NotWritable`].
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let not_writable = |source| OpenError::NotWritable {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(not_writable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Without it the message only says less.
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim().parse().ok();
                return Err(OpenError::InUse {
                    pid,
                    path: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        }
        // The lock is what counts; on a full disk the holder stays unnamed.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}
