"""A module whose import takes ten minutes: a child that is to call it never says that it is ready."""

import time

time.sleep(600)
