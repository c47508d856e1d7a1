package native

import (
	"testing"

	"github.com/temper-ml/temper/backend/backendtest"
)

// TestPortable runs the battery over the engine with plain Go functions instead of assembly: a failure here lies in the engine.
func TestPortable(t *testing.T) {
	o := portable()
	k := newKernels(&o, 2, false, false)
	defer k.Close()
	backendtest.Run(t, k)
}
