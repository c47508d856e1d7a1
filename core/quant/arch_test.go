package quant_test

import "runtime"

// sameSums reports whether sums come out as in the fixtures: elsewhere than on amd64 Go may fuse products and sums.
func sameSums() bool { return runtime.GOARCH == "amd64" }
