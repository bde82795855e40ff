"""Object stores: addresses, and objects read, written and listed, with further attempts where the network fails."""
