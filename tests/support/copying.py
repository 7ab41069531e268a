"""The ways to copy an object that programs use."""

import copy
import pickle

COPIES = [copy.copy, copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))]
