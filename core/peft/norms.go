package peft

import "strings"

// normOf returns the last part of the module name when the parameter is the gain or bias of a norm.
func normOf(param string) (string, bool) {
	module, kind, ok := cutLast(param)
	if !ok || kind != "weight" && kind != "bias" {
		return "", false
	}
	_, last, ok := cutLast(module)
	if !ok {
		last = module
	}
	l := strings.ToLower(last)
	return last, strings.Contains(l, "norm") || l == "ln_1" || l == "ln_2" || l == "ln_f"
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
