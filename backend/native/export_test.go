package native

import (
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/temper-ml/temper/backend"
)

// Counted returns kernels of a level whose assembly is counted, and the names of functions that were not called so far. They call themselves "generic", which
// leaves out what is tested of allocations: counting allocates.
func Counted(level string, threads int, bf16 bool) (backend.Kernels, func() []string) {
	o := *table(level)
	var mu sync.Mutex
	idle := map[string]bool{}
	var wrap func(name string, v reflect.Value)
	wrap = func(name string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Func:
			if v.IsNil() {
				return
			}
			f := reflect.ValueOf(v.Interface())
			idle[name] = true
			v.Set(reflect.MakeFunc(v.Type(), func(args []reflect.Value) []reflect.Value {
				mu.Lock()
				delete(idle, name)
				mu.Unlock()
				return f.Call(args)
			}))
		case reflect.Array:
			for i := range v.Len() {
				wrap(fmt.Sprintf("%s[%d]", name, i), v.Index(i))
			}
		case reflect.Pointer:
			if !v.IsNil() {
				c := reflect.New(v.Type().Elem())
				c.Elem().Set(v.Elem())
				wrap(name, c.Elem())
				v.Set(c)
			}
		case reflect.Map:
			if v.Len() == 0 {
				return
			}
			c := reflect.MakeMap(v.Type())
			for _, key := range v.MapKeys() {
				e := reflect.New(v.Type().Elem()).Elem()
				e.Set(v.MapIndex(key))
				wrap(fmt.Sprintf("%s[%v]", name, key), e)
				c.SetMapIndex(key, e)
			}
			v.Set(c)
		}
	}
	s := reflect.ValueOf(&o).Elem()
	for i := range s.NumField() {
		f := s.Field(i)
		wrap(s.Type().Field(i).Name, reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem())
	}
	o.level = generic
	return newKernels(&o, threads, false, bf16), func() []string {
		mu.Lock()
		defer mu.Unlock()
		var names []string
		for n := range idle {
			names = append(names, n)
		}
		slices.Sort(names)
		return names
	}
}

// Sum is what Bandwidth reads memory with.
func Sum(level string, x []float32) float32 { return table(level).sum(p(x), len(x)) }
