package judge

import (
	"go/token"
	"path"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"
	"honnef.co/go/tools/analysis/lint"
	"honnef.co/go/tools/unused"
)

// directives is the name under which the comments themselves are found wrong.
const directives = "lint"

// ignored drops the findings that a comment says to ignore, as staticcheck has them:
//
//	//lint:ignore CHECK[,CHECK...] REASON
//	//lint:file-ignore CHECK[,CHECK...] REASON
//
// A comment that does not give a reason, or that ignores nothing, is a finding.
func ignored(l *loaded, findings []Finding, analyzers []*analysis.Analyzer) []Finding {
	var wrong []Finding
	for _, d := range lint.ParseDirectives(l.files, l.fset) {
		if d.Command != "ignore" && d.Command != "file-ignore" {
			continue
		}
		at := l.fset.PositionFor(d.Directive.Pos(), false)
		if len(d.Arguments) < 2 {
			wrong = append(wrong, Finding{Position: at, Message: "say which check to ignore, and why", Analyzer: directives})
			continue
		}
		checks := strings.Split(d.Arguments[0], ",")
		code := l.fset.PositionFor(d.Node.Pos(), false)
		before := len(findings)
		findings = slices.DeleteFunc(findings, func(f Finding) bool {
			return matches(checks, f.Analyzer) && meant(d.Command, code, f.Position)
		})
		if d.Command == "ignore" && len(findings) == before && couldMatch(checks, analyzers) {
			wrong = append(wrong, Finding{Position: at, Message: "there is nothing to ignore; remove this", Analyzer: directives})
		}
	}
	return append(findings, wrong...)
}

// matches says whether one of the patterns is for the analyzer.
func matches(checks []string, analyzer string) bool {
	return slices.ContainsFunc(checks, func(check string) bool {
		// A malformed pattern matches nothing.
		ok, _ := path.Match(strings.ToLower(check), strings.ToLower(analyzer))
		return ok
	})
}

// couldMatch says whether one of the patterns must have matched a finding. What is
// unused is so in one variant of a package, and in another it is not.
func couldMatch(checks []string, analyzers []*analysis.Analyzer) bool {
	return !matches(checks, unused.Analyzer.Analyzer.Name) &&
		slices.ContainsFunc(analyzers, func(a *analysis.Analyzer) bool { return matches(checks, a.Name) })
}

func meant(command string, code, found token.Position) bool {
	return code.Filename == found.Filename && (command == "file-ignore" || code.Line == found.Line)
}
