package checkpoint

import (
	"fmt"
	"io"
	"os"

	"github.com/temper-ml/temper/core/tensor"
)

// mapping is the bytes of a file: mapped read-only where the system can, otherwise read into memory.
type mapping struct {
	data   []byte
	unmap  func([]byte) error
	forget func() // see tensor.Mapped
}

func (m *mapping) Close() error {
	if m.unmap == nil || m.data == nil {
		m.data = nil
		return nil
	}
	data := m.data
	m.data = nil
	m.forget()
	return m.unmap(data)
}

// openMapping maps a regular file. Folders, devices and pipes are refused, since their size is not known before they are read.
func openMapping(path string) (*mapping, error) {
	regular := func(st os.FileInfo, err error) error {
		if err == nil && !st.Mode().IsRegular() {
			err = fmt.Errorf("%s: expected a regular file, it is %s", path, describeMode(st.Mode()))
		}
		return err // of the system's, names the path
	}
	if err := regular(os.Stat(path)); err != nil { // before opening: a pipe without a writer would wait for ever
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err := regular(st, err); err != nil {
		return nil, err
	}
	size := st.Size()
	if size == 0 {
		return &mapping{}, nil
	}
	if int64(int(size)) != size {
		return nil, fmt.Errorf("%s: %d bytes do not fit the address space of this machine", path, size)
	}
	if data, unmap, err := mapFile(f, int(size)); err == nil {
		return &mapping{data: data, unmap: unmap, forget: tensor.Mapped(data)}, nil
	}
	// Some file systems cannot map (and some systems cannot at all): read instead.
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return &mapping{data: data}, nil
}

func describeMode(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeDevice != 0:
		return "a device"
	case m&os.ModeSocket != 0:
		return "a socket"
	}
	return "not a regular file"
}
