//go:build !wasip1

package peft

import "regexp"

// matches reports whether the pattern matches text.
func matches(pattern, text string) (bool, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false, err
	}
	return re.MatchString(text), nil
}
