"""Fit a pipeline on arrays: which kinds of patients are there, and what will each need?

python examples/initial_training_example.py
"""

from tsclust_model import PipelineConfig, TimeSeriesClusteringPipeline, make_hospital


def main() -> None:
    hospital = make_hospital(3000)
    features = hospital[["age", "heart_rate", "systolic_pressure", "temperature", "creatinine"]]

    config = PipelineConfig(hdbscan_params={"min_cluster_size": 40, "min_samples": 5})
    pipeline = TimeSeriesClusteringPipeline(config, model_name="training-example")
    clustering = pipeline.fit_initial(
        features,
        hospital["length_of_stay_days"],
        resources={"nursing_hours": hospital["nursing_hours"]},
    )
    print(f"{clustering.metrics['n_clusters']} segments, {clustering.noise_ratio:.1%} noise")
    for cluster, figures in pipeline.get_performance_report().model_metrics.items():
        print(f"segment {cluster}: RMSE {figures['rmse']:.2f} days on {figures['n_rows']} rows")
    print("registered as version", pipeline.current_model_version)


if __name__ == "__main__":
    main()
