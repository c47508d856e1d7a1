//go:build wasip1

package temper

import "unsafe"

var request, reply []byte

//go:wasmexport temper_abi_version
func abiVersion() uint32 { return 1 }

//go:wasmexport temper_alloc
func alloc(size uint32) uint32 {
	reply = nil
	request = make([]byte, max(size, 1))
	return address(request)
}

//go:wasmexport temper_perturb
func perturb(_, size uint32) uint64 {
	b, err := answer(request[:size])
	if err != nil {
		panic(err)
	}
	reply = b
	return uint64(address(reply))<<32 | uint64(len(reply))
}

//go:wasmexport temper_name
func pluginName() uint64 {
	reply = []byte(name)
	return uint64(address(reply))<<32 | uint64(len(reply))
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmimport temper score
func importScore(req uint32, texts unsafe.Pointer, textsLen uint32, out unsafe.Pointer, room uint32) int32

//go:wasmimport temper importance
func importImportance(req uint32, text unsafe.Pointer, textLen, label uint32, spans unsafe.Pointer, count uint32, out unsafe.Pointer, room uint32) int32

//go:wasmimport temper nearest
func importNearest(word unsafe.Pointer, wordLen, n uint32, out unsafe.Pointer, room uint32) int32

//go:wasmimport temper fill
func importFill(text unsafe.Pointer, textLen, start, end, n uint32, out unsafe.Pointer, room uint32) int32

//go:wasmimport temper tokenize
func importTokenize(text unsafe.Pointer, textLen uint32, out unsafe.Pointer, room uint32) int32

//go:wasmimport temper log
func importLog(text unsafe.Pointer, textLen uint32)

func at(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func in(s string) (unsafe.Pointer, uint32) {
	return unsafe.Pointer(unsafe.StringData(s)), uint32(len(s))
}

func hostScore(req uint32, msg, out []byte) int32 {
	return importScore(req, at(msg), uint32(len(msg)), at(out), uint32(len(out)))
}

func hostImportance(req uint32, text string, label uint32, spans []byte, count uint32, out []byte) int32 {
	p, n := in(text)
	return importImportance(req, p, n, label, at(spans), count, at(out), uint32(len(out)))
}

func hostNearest(word string, n uint32, out []byte) int32 {
	p, size := in(word)
	return importNearest(p, size, n, at(out), uint32(len(out)))
}

func hostFill(text string, start, end, n uint32, out []byte) int32 {
	p, size := in(text)
	return importFill(p, size, start, end, n, at(out), uint32(len(out)))
}

func hostTokenize(text string, out []byte) int32 {
	p, n := in(text)
	return importTokenize(p, n, at(out), uint32(len(out)))
}

func hostLog(message string) {
	p, n := in(message)
	importLog(p, n)
}
