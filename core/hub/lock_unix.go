//go:build unix

package hub

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return true, nil // a file system without locks: go on without, as the Python client does
	}
	return err == nil, err
}

func releaseLock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) } // closing the file releases it anyway
