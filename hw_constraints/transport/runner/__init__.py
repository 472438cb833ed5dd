"""What runs on the device: Python 3.8's standard library and a runtime, in one file that `bundle` puts together.

`main` answers one question and ends; `work` measures one job in a process of its own, which no cut connection ends.
"""
