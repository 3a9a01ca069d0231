package grid

import (
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// The one codec: CBOR in its canonical form (RFC 7049 section 3.9: shortest lengths, map keys sorted
// by length then bytes), which is also the order that DAG-CBOR demands. Equal values have equal bytes,
// so records can be hashed and signed. The decoder refuses duplicate keys, indefinite lengths and
// anything nested deeply or longer than our records ever are.
var (
	encMode = must(cbor.EncOptions{
		Sort:          cbor.SortCanonical,
		ShortestFloat: cbor.ShortestFloatNone,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsAllowed,
		Time:          cbor.TimeRFC3339Nano, // the default would cut times to seconds
	}.EncMode())
	decMode   = decoder(1 << 20)
	smallMode = decoder(maxSmallList)
)

// maxSmallList bounds every list in a message or a spec. A list's elements take up to some hundred
// times their encoded size in memory, so that a message of a megabyte could otherwise ask for most of a
// gigabyte.
const maxSmallList = 1 << 14

func decoder(maxList int) cbor.DecMode {
	return must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxNestedLevels:  16,
		MaxArrayElements: maxList,
		MaxMapPairs:      1 << 16,
		DefaultMapType:   reflect.TypeFor[map[string]any](),
	}.DecMode())
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // a constant above is wrong
	}
	return v
}

// Marshal encodes v in the canonical form.
func Marshal(v any) ([]byte, error) { return encMode.Marshal(v) }

// Unmarshal decodes one value from data, which must hold nothing else. Bytes from outside must have
// been length-capped before.
func Unmarshal(data []byte, v any) error { return unmarshal(decMode, data, v) }

// UnmarshalMessage is Unmarshal for records without long lists: messages of peers, and specs. No list may have
// more than 16,384 items.
func UnmarshalMessage(data []byte, v any) error { return unmarshal(smallMode, data, v) }

func unmarshal(mode cbor.DecMode, data []byte, v any) error {
	if err := mode.Unmarshal(data, v); err != nil {
		return Errorf(Invalid, "malformed CBOR: %v", err)
	}
	return nil
}
