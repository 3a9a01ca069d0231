package jobfile

import (
	"cmp"
	"fmt"
	"slices"
)

// Problem is something wrong with a job file.
type Problem struct {
	Line    int    `json:"line,omitempty"` // from 1; 0: it is about the file as a whole
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Warning bool   `json:"warning,omitempty"` // the job could run all the same
}

// Where is the problem's place behind the name of its file.
func (p *Problem) Where(file string) string {
	switch {
	case p.Line == 0:
		return file
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", file, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", file, p.Line, p.Column)
}

// MaxProblems is how many problems of one file are told of.
const MaxProblems = 10

// Failed reports whether one of the problems is no mere warning.
func Failed(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}

// inOrder sorts problems by their places and leaves out what is too much.
func inOrder(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	problems = slices.Compact(problems)
	if more := len(problems) - MaxProblems; more > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int { // errors before warnings
			switch {
			case a.Warning == b.Warning:
				return 0
			case b.Warning:
				return -1
			}
			return 1
		})
		problems = append(problems[:MaxProblems:MaxProblems], Problem{
			Message: fmt.Sprintf("and %d more", more), Warning: !Failed(problems[MaxProblems:]),
		})
	}
	return problems
}
