//go:build !unix && !windows

package checkpoint

import (
	"errors"
	"os"
)

func mapFile(*os.File, int) ([]byte, func([]byte) error, error) {
	return nil, nil, errors.ErrUnsupported
}
