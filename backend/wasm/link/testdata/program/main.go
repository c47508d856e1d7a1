// Program does a little of what needs the tables that Trim touches: stacks that grow and are scanned, panics, goroutines, types.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

type node struct {
	Left, Right *node
	Name        string
}

func grow(depth int) *node {
	var pad [64]int
	if depth == 0 {
		runtime.GC()
		return &node{Name: fmt.Sprint("leaf", pad[0])}
	}
	return &node{Left: grow(depth - 1), Name: fmt.Sprint(depth + pad[1])}
}

func caught() (err error) {
	defer func() { err = fmt.Errorf("caught: %v", recover()) }()
	var n *node
	return errors.New(n.Name)
}

func main() {
	done := make(chan int)
	go func() { done <- 7 }()
	n := grow(500)
	depth := 0
	for ; n != nil; n = n.Left {
		depth++
	}
	text, err := json.Marshal(map[string]any{"a": []int{3, 1, 2}, "b": node{Name: "x"}})
	sorted := slices.Sorted(slices.Values([]string{"b", "a"}))
	fmt.Println(depth, <-done, caught(), string(text), err, sorted)
	os.Exit(3)
}
