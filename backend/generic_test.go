package backend_test

import (
	"testing"

	"github.com/temper-ml/temper/backend"
	"github.com/temper-ml/temper/backend/backendtest"
)

func TestGeneric(t *testing.T) { backendtest.Run(t, backend.Generic(1)) }

func TestGenericThreads(t *testing.T) { backendtest.RunThreads(t, backend.Generic) }

func FuzzGeneric(f *testing.F) { backendtest.Fuzz(f, backend.Generic(2)) }

func BenchmarkGeneric(b *testing.B) { backendtest.Bench(b, backend.Generic(1)) }
