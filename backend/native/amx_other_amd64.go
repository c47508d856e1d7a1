//go:build amd64 && !purego && !linux

package native

func offersAMX() bool { return false }
