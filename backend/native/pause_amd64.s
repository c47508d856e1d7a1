//go:build !purego

#include "textflag.h"

// func pause()
TEXT ·pause(SB), NOSPLIT, $0-0
	PAUSE
	RET

// func cpuNumber() int
TEXT ·cpuNumber(SB), NOSPLIT, $0-8
	RDTSCP
	ANDL $0xfff, CX
	MOVQ CX, ret+0(FP)
	RET
