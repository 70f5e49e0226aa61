"""Score batches as they arrive, add outcomes later, and read the monitor.

python examples/batch_processing_example.py
"""

from datetime import timedelta

from tsclust_model import PipelineConfig, TimeSeriesClusteringPipeline, make_hospital

FEATURES = ["age", "heart_rate", "systolic_pressure", "temperature", "creatinine", "ward"]


def main() -> None:
    hospital = make_hospital(3500)
    past, coming = hospital.iloc[:2500], hospital.iloc[2500:]
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 40, "min_samples": 5})
    pipeline = TimeSeriesClusteringPipeline(config, model_name="batch-example")
    pipeline.set_callbacks(
        post_batch=lambda result: print("scored", len(result.cluster_assignments))
    )
    pipeline.fit_initial(past[FEATURES], past["length_of_stay_days"])

    for start in range(0, len(coming), 250):
        batch = coming.iloc[start : start + 250]
        result = pipeline.process_batch(batch[FEATURES])
        if result.degraded:  # a part failed; the forecasts are there all the same
            print("failed:", ", ".join(result.degraded), pipeline.get_recent_errors(1))
        print(f"noise {result.noise_ratio:.1%}, {result.processing_time * 1000:.0f} ms")
        # Stays end later; then their lengths join the history, and the accuracy is monitored.
        pipeline.record_outcomes(result.version_id, batch["length_of_stay_days"])

    print(pipeline.get_alert_summary(timedelta(hours=1))["by_metric"])
    print(pipeline.export_performance_data("batches.csv"))
    pipeline.close()


if __name__ == "__main__":
    main()
