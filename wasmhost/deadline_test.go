package wasmhost

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A context whose Done is closed has an error at that very moment: package context panics otherwise.
func TestGuestContextErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &guestContext{Context: t.Context(), end: time.Now().Add(time.Second)}
		child, cancel := context.WithTimeout(c, time.Minute)
		defer cancel()
		c.Done()
		c.close()
		<-c.Done()
		if c.Err() == nil {
			t.Fatal("closed, and no error")
		}
		<-child.Done()
		if !errors.Is(child.Err(), context.Canceled) {
			t.Fatal("the child says", child.Err())
		}

		d := &guestContext{Context: t.Context(), end: time.Now().Add(time.Second)}
		<-d.Done()
		if !errors.Is(d.Err(), context.DeadlineExceeded) {
			t.Fatal("late, and says", d.Err())
		}
		d.close()
	})
}
