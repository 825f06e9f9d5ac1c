//! The processor time of another process: that of all its threads, ended ones too, in user and kernel mode.

pub(crate) use os::used_by;

#[cfg(target_os = "linux")]
mod os {
    use std::io;
    use std::time::Duration;

    use nix::time::{clock_getcpuclockid, clock_gettime};
    use nix::unistd::Pid;

    /// By the process's own clock, which counts nanoseconds; `/proc/<pid>/stat` counts hundredths of a second.
    pub(crate) fn used_by(process: u32) -> io::Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed()))?;
        Ok(clock_gettime(clock)?.into())
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    use std::io;
    use std::time::Duration;

    pub(crate) fn used_by(_: u32) -> io::Result<Duration> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux says how much processor time another process used"))
    }
}
