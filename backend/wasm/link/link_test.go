package link

import (
	"testing"

	"github.com/stretchr/testify/require"
)

const header = "\x00asm\x01\x00\x00\x00"

func TestImportMemory(t *testing.T) {
	module := []byte(header + "\x01\x04\x01\x60\x00\x00" + "\x05\x03\x01\x00\x02" + "\x07\x05\x01\x01m\x02\x00")
	out, m, err := ImportMemory(module, Memory{Max: 65536, Shared: true})
	require.NoError(t, err)
	require.Equal(t, uint32(2), m.Min)
	require.Equal(t, header+"\x01\x04\x01\x60\x00\x00"+"\x02\x12\x01\x03env\x06memory\x02\x03\x02\x80\x80\x04"+"\x07\x05\x01\x01m\x02\x00", string(out))

	for name, c := range map[string]struct {
		module string
		m      Memory
	}{
		"no module":              {"hello", Memory{}},
		"no memory":              {header, Memory{}},
		"section too long":       {header + "\x05\x09\x01\x00\x02", Memory{}},
		"two memories":           {header + "\x05\x05\x02\x00\x02\x00\x02", Memory{}},
		"shared without maximum": {header + "\x05\x03\x01\x00\x02", Memory{Shared: true}},
		"maximum too small":      {header + "\x05\x03\x01\x00\x02", Memory{Max: 1}},
	} {
		_, _, err := ImportMemory([]byte(c.module), c.m)
		require.Error(t, err, name)
	}
}

func TestImage(t *testing.T) {
	image := make([]byte, 2000)
	image[0], image[1], image[300], image[1999] = 1, 2, 3, 4
	back, base, err := readImage(writeImage(image, 12288))
	require.NoError(t, err)
	require.Equal(t, uint32(12288), base)
	require.Equal(t, image, back)
	require.Equal(t, byte(3), writeImage(image, 12288)[0], "runs of zeros are left out")
}

func TestTrimRefuses(t *testing.T) {
	_, err := Trim([]byte(header + "\x0b\x09\x01\x00\x41\x00\x0b\x03abc"))
	require.ErrorIs(t, err, errLayout)
	_, err = Trim([]byte(header))
	require.Error(t, err)
}

func FuzzLink(f *testing.F) {
	f.Add([]byte(header + "\x05\x03\x01\x00\x02"))
	f.Add([]byte(header + "\x0b\x09\x01\x00\x41\x00\x0b\x03abc"))
	f.Fuzz(func(t *testing.T, module []byte) {
		_, _, _ = ImportMemory(module, Memory{Max: 10, Shared: true})
		_, _ = Trim(module)
	})
}
