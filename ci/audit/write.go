package audit

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/kiln-build/kiln/tools/humanize"
)

// Text writes the report for people.
func (r *Report) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tKEY\tEXECUTED\tMERGED\tDISK CACHE\tREMOTE CACHE\tSECONDS\tSIZE")
	for _, c := range r.Components {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%.1f\t%s\n", c.Target, short(c.Key),
			len(c.Executions), c.Merged, c.FromDiskCache, c.FromRemoteCache, c.Seconds, humanize.Bytes(c.Bytes))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if r.Totals.Executions > 0 {
		fmt.Fprintln(w)
		table = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "EXECUTED\tBY JOB\tON\tAT\tSECONDS\tJOINED BY")
		for _, c := range r.Components {
			for _, e := range c.Executions {
				joined := strings.Join(e.Joined, " ")
				if e.Failure != "" {
					joined = strings.TrimSpace(joined + " (" + e.Failure + ")")
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%.1f\t%s\n", c.Target, e.Job, e.Runner, when(e.Start), e.Seconds, joined)
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Totals.sentence(len(r.Jobs)))
	return err
}

func (t Totals) sentence(jobs int) string {
	return fmt.Sprintf("%d jobs, %d component actions: executed %d times, %d of them more than once; %d requests joined an execution, %d came from a cache.",
		jobs, t.Actions, t.Executions, t.MoreThanOnce, t.Merged, t.FromDiskCache+t.FromRemoteCache)
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// Markdown writes the report for the summary of a run.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	verdict := "every component at most once"
	err := r.Err()
	if err != nil {
		verdict = "not as it must be"
	}
	fmt.Fprintf(&b, "### Executions: %s\n\n", verdict)
	if err != nil {
		fmt.Fprintf(&b, "```\n%v\n```\n\n", err)
	}
	b.WriteString("| component | key | executed | merged | disk cache | remote cache | seconds | size |\n|---|---|--:|--:|--:|--:|--:|--:|\n")
	for _, c := range r.Components {
		fmt.Fprintf(&b, "| `%s` | `%s` | %d | %d | %d | %d | %.1f | %s |\n", c.Target, short(c.Key),
			len(c.Executions), c.Merged, c.FromDiskCache, c.FromRemoteCache, c.Seconds, humanize.Bytes(c.Bytes))
	}
	fmt.Fprintf(&b, "\n%s\n\n", r.Totals.sentence(len(r.Jobs)))
	_, err = io.WriteString(w, b.String())
	return err
}

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class    string         `xml:"classname,attr"`
	Name     string         `xml:"name,attr"`
	Time     string         `xml:"time,attr"`
	Failures []junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report as test results, a component a test.
func (r *Report) JUnit(w io.Writer) error {
	suite := junitSuite{Name: "kiln audit", Tests: len(r.Components)}
	for i := range r.Components {
		c := &r.Components[i]
		result := junitCase{Class: c.Mnemonic, Name: c.Target + " " + short(c.Key), Time: fmt.Sprintf("%.3f", c.Seconds)}
		fail := func(message string, lines []string) {
			if len(lines) > 0 {
				result.Failures = append(result.Failures, junitFailure{message, strings.Join(lines, "\n")})
			}
		}
		fail("executed more than once", c.twice())
		fail("a cache should have had the result", c.missed())
		for _, d := range r.Disagreements {
			if d.Key == c.Key {
				fail("the workers counted otherwise", []string{d.String()})
			}
		}
		if len(result.Failures) > 0 {
			suite.Failures++
		}
		suite.Cases = append(suite.Cases, result)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
