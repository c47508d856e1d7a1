// Package e2e runs the built binary as people do: as a process, over its streams and over HTTP.
package e2e
