package image

import "os"

// TryWith tests a way as Open does, with a file instead of /proc/self/pagemap.
func TryWith(way Way, maps *os.File) error {
	s := &Store{way: way, most: 1 << 30, growth: 1 << 30, page: os.Getpagesize(), maps: maps}
	return s.try()
}
