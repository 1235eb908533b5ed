"""One report of a model and its runs: `tutelage report`.

content.py    sections of text, figures, tables and plots, independent of the format
sections.py   the list of sections, and the files of a report
subject.py    the model and the training run that a report is about
found.py      the measured runs and the comparison of the model
training_run.py         the files of a training run
headline_section.py     accuracy, size, latency, speed, power and energy
training_section.py     settings and curves
classes_section.py      accuracy by class and the confusion matrix
cost_section.py         predicted cost on a board, with the DPU's engines over time
trace_section.py        a measured run, with its power over time
comparison_section.py   CPU, GPU and DPU, and the gains beside those of the thesis
study_section.py        the QKD study and its ablation
prediction_section.py   predicted against published speeds
html_page.py, page_style.py, markdown.py   the two output formats
errors.py     errors of files that cannot be used
"""
