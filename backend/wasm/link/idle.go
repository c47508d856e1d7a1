package link

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
)

// idle names functions that cannot run in a page. Each stands behind a switch that only the environment, a profiler or a debugger could
// turn; or writes and reads files, of which a page has none; or makes text of times. Should one run all the same, the engine stops there.
// Names are those of the module's name section: what is neither letter nor digit is an underscore.
var idle = regexp.MustCompile(`^(` + strings.Join([]string{
	// Times as text: no request and no answer has one.
	`time\.(__Time_|Time)\.(UnmarshalJSON|UnmarshalText|UnmarshalBinary|MarshalJSON|MarshalText|MarshalBinary|GobDecode|GobEncode|Format|String|GoString|AppendFormat|AppendText|AppendBinary)`,
	`time\.(__Location_|Location)\.String`, `time\.(__Month_|Month|__Weekday_|Weekday)\.String`,
	// runtime/trace: traceLocker's exported methods follow a test of traceLocker.ok.
	`runtime\.traceAdvance`, `runtime\.traceLocker\.[A-Z]\w*`, `runtime\.traceReadCPU`, `runtime\.__traceMap_\.\w+`, `runtime\.__traceTypeTable_\.\w+`,
	// GODEBUG, from an environment that is empty.
	`runtime\.(schedtrace|dumpScanStats|checkFinalizersAndCleanups|printScavTrace|initMetrics)`, `internal_godebug\.registerMetric`,
	`internal_bisect\.New`, `internal_bisect\.__Matcher_\.\w+`,
	// Profiles: their rates are zero.
	`runtime\.(saveblockevent|doRecordGoroutineProfile|findGoroutineLeaks)`, `runtime\.__profBuf_\.\w+`,
	// C, and methods by reflection, which nothing here calls.
	`runtime\.(cgocall|callCgoSymbolizer|printOneCgoTraceback)`, `reflect\.(makeMethodValue|callMethod|methodReceiver|methodValueCall)`,
	// Files.
	`os\.(ReadDir|ReadFile|WriteFile|Open|Create|OpenFile|OpenRoot|RemoveAll|Remove|Rename|Getwd|MkdirTemp|MkdirAll|Mkdir|CreateTemp|Stat|Lstat|Readlink|DirFS)`,
	`os\.__File_\.(ReadDir|Readdir|Readdirnames|readdir|ReadFrom|ReadAt|WriteAt|Seek|Stat|Truncate|Chmod|Chown|Chdir|Sync|WriteTo|Fd|SyscallConn|SetDeadline|SetReadDeadline|SetWriteDeadline)`,
	`os\.(__unixDirent_|unixDirent|__fileStat_|fileStat|__Root_|__rootFS_|rootFS|dirFS)\.\w+`, `path_filepath\.(EvalSymlinks|Abs|Glob|WalkDir)`,
	`github\.com_temper_ml_temper_core_checkpoint\.(WriteFolder|WriteFile|OpenFolder|OpenSafetensors|OpenGGUF)`,
	`github\.com_temper_ml_temper_core_train\.(clearState|loadState|__state_\.save)`,
}, "|") + `)$`)

var (
	method  = regexp.MustCompile(`\.[^.]+\.[^.]+$`)
	closure = regexp.MustCompile(`\.(func|gowrap|deferwrap)\d+(\.\d+)*$`)
)

// isMethod finds the methods among names: their addresses stand in types' tables as plain numbers, so that each counts as taken.
func isMethod(name string) bool {
	if i := strings.Index(name, "github.com"); i >= 0 {
		name = name[i+len("github.com"):]
	}
	name = strings.ReplaceAll(name, "golang.org", "")
	name = closure.ReplaceAllString(name, "")
	return method.MatchString(name)
}

// Addresses of functions: the linker counts from here and shifts by 16.
const firstFunction = 0x1000

// dropIdle empties the bodies of idle functions and of what nothing else calls. dead has an entry for each function of the module.
func (m *module) dropIdle(image []byte, base uint32, t *tables) (dead []bool, err error) {
	names, err := m.functionNames()
	if err != nil {
		return nil, err
	}
	imports, err := m.importedFunctions()
	if err != nil {
		return nil, err
	}
	bodies, err := m.bodies()
	if err != nil {
		return nil, err
	}
	n := len(bodies)
	if n != t.functions {
		return nil, fmt.Errorf("%d functions of code, %d in the table: %w", n, t.functions, errLayout)
	}
	cut := make([]bool, n)
	live := make([]bool, n)
	var todo []int
	reach := func(i int) {
		if i >= 0 && i < n && !live[i] && !cut[i] {
			live[i] = true
			todo = append(todo, i)
		}
	}
	address := func(v uint64) int { // the function whose address v is, or -1
		if i := v >> 16; v&0xffff == 0 && i >= firstFunction && i < firstFunction+uint64(n) {
			return int(i - firstFunction)
		}
		return -1
	}
	for i := range n {
		cut[i] = idle.MatchString(names[imports+i])
	}
	for i := range n {
		if name := names[imports+i]; name == "" || isMethod(name) || strings.HasPrefix(name, "_rt0") || strings.HasPrefix(name, "wasm_") {
			reach(i)
		}
	}
	exported, err := m.exported()
	if err != nil {
		return nil, err
	}
	for _, i := range exported {
		reach(i - imports)
	}
	// Function values lie aligned in the program's data, the function table apart, which names all functions.
	for at := int(-base & 3); at+8 <= len(image); at += 4 {
		if at >= t.head && at < t.head+t.after {
			continue
		}
		reach(address(binary.LittleEndian.Uint64(image[at:])))
	}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		err := uses(bodies[i], func(f int) { reach(f - imports) }, func(v int64) {
			if f := uint64(v) >> 16; f >= firstFunction && f < firstFunction+uint64(n) && int(f-firstFunction) != i {
				reach(int(f - firstFunction))
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", names[imports+i], err)
		}
	}
	dead = make([]bool, n)
	for i := range n {
		if !live[i] {
			dead[i] = true
			bodies[i] = []byte{0, 0x00, 0x0b} // no locals, unreachable
		}
	}
	m.setBodies(bodies)
	return dead, nil
}
