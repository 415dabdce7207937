package judge

import (
	"go/types"
	"reflect"
	"strings"

	"honnef.co/go/tools/analysis/facts/deprecated"
	"honnef.co/go/tools/knowledge"
)

// knowStandard adds what the standard library deprecates. There are no facts about it,
// but staticcheck has a list. What that has of syscall is deprecated on some platforms
// only, and Linux is not one of them.
func (f facts) knowStandard(packages map[string]*types.Package) {
	fact := &deprecated.IsDeprecated{Msg: "its documentation says what to use"}
	for name := range knowledge.StdlibDeprecations {
		if strings.HasPrefix(name, "syscall.") {
			continue
		}
		if pkg := packages[name]; pkg != nil {
			f[factKey{pkg, nil, reflect.TypeOf(fact)}] = fact
		} else if obj := standardObject(name, packages); obj != nil {
			f[factKey{obj.Pkg(), obj, reflect.TypeOf(fact)}] = fact
		}
	}
}

// standardObject gives what has a name like "io/ioutil.ReadAll" or
// "(*net/http.Transport).Dial", or nil where no package imports it.
func standardObject(name string, packages map[string]*types.Package) types.Object {
	var member string
	if inside, after, ok := strings.Cut(name, ")."); ok {
		name, member = strings.TrimLeft(inside, "(*"), after
	}
	dot := strings.LastIndex(name, ".")
	if dot < 0 {
		return nil
	}
	pkg := packages[name[:dot]]
	if pkg == nil {
		return nil
	}
	obj := pkg.Scope().Lookup(name[dot+1:])
	if obj == nil || member == "" {
		return obj
	}
	found, _, _ := types.LookupFieldOrMethod(obj.Type(), true, pkg, member)
	return found
}
