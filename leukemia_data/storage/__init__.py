"""Object stores: addresses, and objects read and written as if no request ever failed."""
