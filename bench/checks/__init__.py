"""Is a plug-in, a run, a machine sound?"""
