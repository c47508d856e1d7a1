// Package digest computes SHA-256. The page's engine is weighed in bytes, and Go's own package brings ciphers and random generators with
// it: there a plain implementation does the work.
package digest

// Size is the number of bytes of a sum.
const Size = 32
