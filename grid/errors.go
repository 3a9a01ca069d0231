package grid

import (
	"context"
	"errors"
	"fmt"
)

// Code classifies an error for programs: it may cross the wire, picks the HTTP status and the exit
// code, and is its own sentinel:
//
//	if errors.Is(err, grid.NotFound) { … }
//
// Codes are appended, never renumbered.
type Code uint16

// The codes.
const (
	Unknown     Code = iota // no code was given
	Invalid                 // the input is wrong; trying again will not help
	NotFound                // the named thing does not exist here
	Conflict                // a condition of a transaction failed, or the thing is in another state
	Unavailable             // a peer or the majority cannot be reached now; try again
	Canceled                // somebody asked for it to stop
	Deadline                // time ran out
	Limit                   // a configured bound was reached
	NoSpace                 // the disk or a quota is full
	Corrupt                 // bytes do not match their hash or checksum
	Denied                  // not allowed
	Unsupported             // well-formed, but not something this version does
	Internal                // a fault of ours
	Trap                    // the guest trapped
	Exit                    // the guest exited with a code other than 0
	Busy                    // somebody else holds it
	OutOfDate               // it lies too far back to be known any more
)

var codeNames = [...]string{
	"unknown", "invalid", "not found", "conflict", "unavailable", "canceled", "deadline exceeded",
	"limit exceeded", "no space", "corrupt", "denied", "unsupported", "internal", "trap", "exit", "busy", "out of date",
}

func (c Code) Error() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// Error is an error with a code for programs and, when there is one, the next step for a person.
type Error struct {
	Code    Code
	Message string
	Advice  string // the next step, or ""
	Err     error  // the cause, or nil
}

// Errorf makes an Error. A %w in the format is the cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// Hint sets the advice and returns e.
func (e *Error) Hint(format string, args ...any) *Error {
	e.Advice = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is e's code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// CodeOf finds the code of err: that of the outermost Error, or the nearest match of a context error.
func CodeOf(err error) Code {
	var e *Error
	var c Code
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &c):
		return c
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Unknown
}

// AdviceOf finds the advice nearest the surface of err, or "".
func AdviceOf(err error) string {
	for e := (*Error)(nil); errors.As(err, &e); err = e.Err {
		if e.Advice != "" {
			return e.Advice
		}
		if e.Err == nil {
			break
		}
	}
	return ""
}
