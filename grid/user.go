package grid

import "context"

// userOf is the key of a context for whom something is done.
type userOf struct{}

// WithUser has what is done under a context be done for a user who has proved who he is: the audit log names him.
func WithUser(ctx context.Context, user string) context.Context {
	return context.WithValue(ctx, userOf{}, user)
}

// UserOf is for whom something is done; "" when nobody has proved who he is, as whoever may use the node's socket.
func UserOf(ctx context.Context) string {
	user, _ := ctx.Value(userOf{}).(string)
	return user
}

// User is [UserOf] the context that the transaction is made under.
func (x *Tx) User() string { return UserOf(x.ctx) }
